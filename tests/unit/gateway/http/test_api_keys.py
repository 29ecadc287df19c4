"""API keys: their file, and the gateway that requires them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from mmd.errors import WrongUsage
from mmd.gateway.http.api_keys import KeyFile, Keyring, Purpose, digest
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.policy import ListenerInfo, RequestPolicy
from mmd.gateway.http.request import RequestHead
from mmd.paths import keys_file
from tests.gateway_peer import Harness, RawClient, harness, post


def _policy() -> RequestPolicy:
    return RequestPolicy(Limits(), keyring=Keyring(stat_seconds=0))


def test_key_is_stored_as_a_hash_in_a_private_file() -> None:
    key = KeyFile().add("laptop", Purpose.INFERENCE)
    assert key.startswith("mmd-") and len(key) >= 4 + 43
    assert key[4:] not in keys_file().read_text()
    assert keys_file().stat().st_mode & 0o777 == 0o600
    (kept,) = KeyFile().all()
    assert (kept.name, kept.purpose, kept.sha256) == ("laptop", Purpose.INFERENCE, digest(key))


def test_keys_differ_and_are_listed_by_name() -> None:
    assert KeyFile().add("b", Purpose.INFERENCE) != KeyFile().add("a", Purpose.MANAGEMENT)
    assert [key.name for key in KeyFile().all()] == ["a", "b"]


def test_needed_last_key_cannot_be_removed() -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    KeyFile().add("b", Purpose.INFERENCE)
    assert KeyFile().remove("a", last_too=False).name == "a"
    with pytest.raises(WrongUsage, match="only key"):
        KeyFile().remove("b", last_too=False)
    KeyFile().remove("b", last_too=True)
    assert KeyFile().all() == ()


@pytest.mark.parametrize("name", ["", "-x", "a b", "ä", "x" * 65, "a\n"])
def test_invalid_key_name_is_refused(name: str) -> None:
    with pytest.raises(WrongUsage, match="not a valid key name"):
        KeyFile().add(name, Purpose.INFERENCE)


def test_taken_and_unknown_names_are_refused() -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    with pytest.raises(WrongUsage, match="already"):
        KeyFile().add("a", Purpose.MANAGEMENT)
    with pytest.raises(WrongUsage, match="no key is named b"):
        KeyFile().remove("b", last_too=True)


@pytest.mark.parametrize(
    "text",
    [
        "[keys",
        "keys = 1",
        "[keys]\na = 1",
        '[keys.a]\nfor = "inference"\nmade = ""',
        f'[keys.a]\nfor = "everything"\nmade = ""\nsha256 = "{"0" * 64}"',
        '[keys.a]\nfor = "inference"\nmade = ""\nsha256 = "00"',
    ],
)
def test_damaged_file_is_an_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(WrongUsage, match="damaged"):
        Keyring(KeyFile(file))


def test_file_damaged_later_keeps_the_keys(caplog: pytest.LogCaptureFixture) -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    keyring = Keyring(stat_seconds=0)
    keys_file().write_text("[keys")
    assert [key.name for key in keyring.current()] == ["a"]
    assert "the API keys stay as they are" in caplog.text


def test_file_is_not_read_for_each_request() -> None:
    keyring = Keyring(stat_seconds=3600)
    KeyFile().add("a", Purpose.INFERENCE)
    assert keyring.current() == ()


async def test_no_key_is_required_without_keys() -> None:
    async with harness(policy=_policy()) as running:
        client = await running.client()
        assert (await client.ask(post({"model": "a"}))).status == 200


async def test_key_is_required_while_one_exists() -> None:
    async with harness(policy=_policy()) as running:
        client = await running.client()
        assert (await client.ask(post({"model": "a"}))).status == 200
        key = KeyFile().add("laptop", Purpose.INFERENCE)
        await _refused(running, post({"model": "a"}))
        with_key = post({"model": "a"}, "/v1/x", f"Authorization: Bearer {key}")
        assert (await client.ask(with_key)).status == 200
        KeyFile().remove("laptop", last_too=True)
        KeyFile().add("other", Purpose.INFERENCE)
        await _refused(running, with_key)


async def _refused(running: Harness, request: bytes, status: int = 401) -> None:
    received = len(running.peer("a").requests)
    client = await running.client()
    answer = await client.ask(request)
    assert answer.status == status
    if status == 401:
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await client.rest() == b""
    assert len(running.peer("a").requests) == received


def _basic(key: str) -> str:
    return base64.b64encode(f"anybody:{key}".encode()).decode()


async def test_key_is_read_from_each_header() -> None:
    key = KeyFile().add("laptop", Purpose.INFERENCE)
    async with harness(policy=_policy()) as running:
        client = await running.client()
        for line in (
            f"Authorization: Bearer {key}",
            f"authorization: bearer  {key} ",
            f"X-Api-Key: {key}",
            f"Authorization: Basic {_basic(key)}",
            f"Authorization: Bearer nothing\r\nx-api-key: {key}",
        ):
            assert (await client.ask(post({"model": "a"}, "/v1/x", line))).status == 200, line
        for line in (
            "Authorization: Bearer",
            "Authorization: Bearer mmd-",
            f"Authorization: Bearer {key}x",
            f"Authorization: {key}",
            f"Authorization: Digest {key}",
            "Authorization: Basic ???",
            "Authorization: Basic " + base64.b64encode(key.encode()).decode(),
            f"x-api-key: Bearer {key}",
            f"Cookie: key={key}",
        ):
            await _refused(running, post({"model": "a"}, "/v1/x", line))
        await _refused(running, post({"model": "a"}, f"/v1/x?key={key}"))


async def test_no_key_reaches_an_engine() -> None:
    """Neither a valid key, nor a foreign one that a client sends by default."""
    async with harness(policy=_policy()) as running:
        client = await running.client()
        await client.ask(post({"model": "a"}, "/v1/x", "Authorization: Bearer sk-of-openai", "x-api-key: sk-ant"))
        key = KeyFile().add("laptop", Purpose.INFERENCE)
        await client.ask(post({"model": "a"}, "/v1/x", f"Authorization: Bearer {key}", f"X-API-KEY: {key}"))
        for received in running.peer("a").requests:
            assert not received.values("authorization") and not received.values("x-api-key")


async def test_management_needs_its_key_and_health_none() -> None:
    inference = KeyFile().add("i", Purpose.INFERENCE)
    management = KeyFile().add("m", Purpose.MANAGEMENT)
    async with harness(policy=_policy()) as running:
        for path in ("/status", "/models/stop", "/", "/v1", "/V1/x", "/health/x"):
            await _refused(running, post({}, path))
            await _refused(running, post({}, path, f"Authorization: Bearer {inference}"), 403)
        assert running.models.log == []
        for path, key in (("/status", management), ("/v1/models", inference), ("/v1/models", management)):
            client = await running.client()
            received = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
            assert (await client.ask(received.encode())).status == 200
        client = await running.client()
        assert (await client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200


async def test_navigating_browser_gets_a_basic_challenge() -> None:
    KeyFile().add("m", Purpose.MANAGEMENT)
    async with harness(policy=_policy()) as running:
        client = await running.client()
        received = b"GET /status HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Mode: navigate\r\n\r\n"
        assert (await client.ask(received)).headers["www-authenticate"].startswith("Basic")


async def test_unix_socket_needs_no_key(tmp_path: Path) -> None:
    KeyFile().add("m", Purpose.MANAGEMENT)
    async with harness(policy=_policy()) as running:
        path = str(tmp_path / "s")[-100:]
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: running.gateway.new_connection(ListenerKind.LOCAL), path)
        client = RawClient(*await asyncio.open_unix_connection(path))
        assert (await client.ask(post({"model": "a"}))).status == 200
        client.disconnect()
        server.close()


_ELSEWHERE = ListenerInfo.of(ListenerKind.MAIN, "192.0.2.7")


def _head(*headers: tuple[bytes, bytes], target: bytes = b"/v1/x") -> RequestHead:
    return RequestHead.read(b"GET", target, "1.1", True, [(b"Host", b"192.0.2.7:8000"), *headers])


def test_exposed_listener_always_requires_a_key() -> None:
    """If the file is lost, all requests are refused; without this rule all would be accepted."""
    policy = _policy()
    failure = policy.check(_head(), _ELSEWHERE)
    assert failure is not None and failure.status == 401
    assert policy.check(_head(target=b"/health"), _ELSEWHERE) is None
    key = KeyFile().add("laptop", Purpose.INFERENCE).encode()
    assert policy.check(_head((b"Authorization", b"Bearer " + key)), _ELSEWHERE) is None

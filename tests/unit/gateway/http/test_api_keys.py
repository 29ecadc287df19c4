"""API keys: the file they are in, and the gateway that asks for them."""

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
from tests.gateway_peer import RawClient, Town, post, town


def _policy() -> RequestPolicy:
    return RequestPolicy(Limits(), keyring=Keyring(stat_seconds=0))


def test_key_is_kept_as_a_hash_and_nobody_else_reads_the_file() -> None:
    key = KeyFile().add("laptop", Purpose.INFERENCE)
    assert key.startswith("mmd-") and len(key) >= 4 + 43
    assert key[4:] not in keys_file().read_text()
    assert keys_file().stat().st_mode & 0o777 == 0o600
    (kept,) = KeyFile().all()
    assert (kept.name, kept.purpose, kept.sha256) == ("laptop", Purpose.INFERENCE, digest(key))


def test_keys_differ_and_are_listed_by_name() -> None:
    assert KeyFile().add("b", Purpose.INFERENCE) != KeyFile().add("a", Purpose.MANAGEMENT)
    assert [key.name for key in KeyFile().all()] == ["a", "b"]


def test_removed_key_is_refused_and_a_needed_last_key_stays() -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    KeyFile().add("b", Purpose.INFERENCE)
    assert KeyFile().remove("a", last_too=False).name == "a"
    with pytest.raises(WrongUsage, match="only key"):
        KeyFile().remove("b", last_too=False)
    KeyFile().remove("b", last_too=True)
    assert KeyFile().all() == ()


@pytest.mark.parametrize("name", ["", "-x", "a b", "ä", "x" * 65, "a\n"])
def test_name_that_is_none(name: str) -> None:
    with pytest.raises(WrongUsage, match="not a valid key name"):
        KeyFile().add(name, Purpose.INFERENCE)


def test_name_that_is_taken_and_name_that_is_not_there() -> None:
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
def test_damaged_file_is_no_file_without_keys(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(WrongUsage, match="damaged"):
        Keyring(KeyFile(file))


def test_file_that_is_damaged_later_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    keyring = Keyring(stat_seconds=0)
    keys_file().write_text("[keys")
    assert [key.name for key in keyring.current()] == ["a"]
    assert "the API keys stay as they are" in caplog.text


def test_file_is_looked_at_now_and_then_only() -> None:
    keyring = Keyring(stat_seconds=3600)
    KeyFile().add("a", Purpose.INFERENCE)
    assert keyring.current() == ()


async def test_without_keys_nothing_is_asked_for() -> None:
    async with town(policy=_policy()) as running:
        client = await running.client()
        assert (await client.ask(post({"model": "a"}))).status == 200


async def test_key_is_asked_for_from_its_making_to_its_removal() -> None:
    async with town(policy=_policy()) as running:
        client = await running.client()
        assert (await client.ask(post({"model": "a"}))).status == 200
        key = KeyFile().add("laptop", Purpose.INFERENCE)
        await _refused(running, post({"model": "a"}))
        with_key = post({"model": "a"}, "/v1/x", f"Authorization: Bearer {key}")
        assert (await client.ask(with_key)).status == 200
        KeyFile().remove("laptop", last_too=True)
        KeyFile().add("other", Purpose.INFERENCE)
        await _refused(running, with_key)


async def _refused(running: Town, request: bytes, status: int = 401) -> None:
    asked = len(running.peer("a").asked)
    client = await running.client()
    answer = await client.ask(request)
    assert answer.status == status
    if status == 401:
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await client.rest() == b""
    assert len(running.peer("a").asked) == asked


def _basic(key: str) -> str:
    return base64.b64encode(f"anybody:{key}".encode()).decode()


async def test_key_is_read_as_openai_anthropic_and_browsers_send_it() -> None:
    key = KeyFile().add("laptop", Purpose.INFERENCE)
    async with town(policy=_policy()) as running:
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
    """Neither ours, nor one of somebody else's that a client sends because it always does."""
    async with town(policy=_policy()) as running:
        client = await running.client()
        await client.ask(post({"model": "a"}, "/v1/x", "Authorization: Bearer sk-of-openai", "x-api-key: sk-ant"))
        key = KeyFile().add("laptop", Purpose.INFERENCE)
        await client.ask(post({"model": "a"}, "/v1/x", f"Authorization: Bearer {key}", f"X-API-KEY: {key}"))
        for asked in running.peer("a").asked:
            assert not asked.values("authorization") and not asked.values("x-api-key")


async def test_management_takes_a_key_for_it_and_health_none() -> None:
    inference = KeyFile().add("i", Purpose.INFERENCE)
    management = KeyFile().add("m", Purpose.MANAGEMENT)
    async with town(policy=_policy()) as running:
        for path in ("/status", "/models/stop", "/", "/v1", "/V1/x", "/health/x"):
            await _refused(running, post({}, path))
            await _refused(running, post({}, path, f"Authorization: Bearer {inference}"), 403)
        assert running.models.log == []
        for path, key in (("/status", management), ("/v1/models", inference), ("/v1/models", management)):
            client = await running.client()
            asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
            assert (await client.ask(asked.encode())).status == 200
        client = await running.client()
        assert (await client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200


async def test_browser_that_navigates_may_ask_its_user() -> None:
    KeyFile().add("m", Purpose.MANAGEMENT)
    async with town(policy=_policy()) as running:
        client = await running.client()
        asked = b"GET /status HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Mode: navigate\r\n\r\n"
        assert (await client.ask(asked)).headers["www-authenticate"].startswith("Basic")


async def test_unix_socket_needs_no_key(tmp_path: Path) -> None:
    KeyFile().add("m", Purpose.MANAGEMENT)
    async with town(policy=_policy()) as running:
        path = str(tmp_path / "s")[-100:]
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: running.gateway.new_connection(ListenerKind.LOCAL), path)
        client = RawClient(*await asyncio.open_unix_connection(path))
        assert (await client.ask(post({"model": "a"}))).status == 200
        client.leave()
        server.close()


_ELSEWHERE = ListenerInfo.of(ListenerKind.MAIN, "192.0.2.7")


def _head(*headers: tuple[bytes, bytes], target: bytes = b"/v1/x") -> RequestHead:
    return RequestHead.read(b"GET", target, "1.1", True, [(b"Host", b"192.0.2.7:8000"), *headers])


def test_where_other_machines_connect_a_key_is_always_needed() -> None:
    """The last key may have gone with its file: then nobody gets in, rather than everybody."""
    policy = _policy()
    failure = policy.check(_head(), _ELSEWHERE)
    assert failure is not None and failure.status == 401
    assert policy.check(_head(target=b"/health"), _ELSEWHERE) is None
    key = KeyFile().add("laptop", Purpose.INFERENCE).encode()
    assert policy.check(_head((b"Authorization", b"Bearer " + key)), _ELSEWHERE) is None

"""Requests that are refused by their head, and the errors that they get."""

from __future__ import annotations

import httpx
import pytest

from mmd.gateway.http.limits import Limits
from mmd.gateway.http.origins import is_loopback_authority, is_loopback_origin
from tests.gateway_peer import Harness, RawClient, harness, post, until

_HOST = b"Host: localhost\r\n"


async def _refused(running: Harness, request: bytes, status: int) -> None:
    """Assert an error in OpenAI's format, a closed connection, and an engine that saw nothing."""
    client = await running.client()
    answer = await client.ask(request)
    error = answer.json()["error"]
    assert answer.status == status, error
    assert error["source"] == "mmd" and error["message"] and error["hint"] and error["code"] and error["type"]
    assert answer.headers["connection"] == "close"
    assert await client.rest() == b""
    assert running.peer("a").requests == []


_POST = b"POST /v1/x HTTP/1.1\r\n" + _HOST
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"

# Known request smuggling: two parsers find a different end of the request, or a different header name.
_ATTACKS = {
    "two lengths": _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "one length twice": _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": _POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "length with a sign": _POST + b"Content-Length: +3\r\n\r\nabc",
    "negative length": _POST + b"Content-Length: -1\r\n\r\nabc",
    "hexadecimal length": _POST + b"Content-Length: 0x3\r\n\r\nabc",
    "length with a fraction": _POST + b"Content-Length: 3.0\r\n\r\nabc",
    "length with an exponent": _POST + b"Content-Length: 3e0\r\n\r\nabc",
    "length in quotes": _POST + b'Content-Length: "3"\r\n\r\nabc',
    "length in two parts": _POST + b"Content-Length: 1 3\r\n\r\nabc",
    "length after a vertical tab": _POST + b"Content-Length: \x0b3\r\n\r\nabc",
    "length that overflows": _POST + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "empty length": _POST + b"Content-Length:\r\n\r\nabc",
    "length, then chunks": _POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + _END,
    "chunks, then length": _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + _END,
    "identity": _POST + b"Transfer-Encoding: identity\r\n\r\n",
    "identity and length": _POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "identity, chunked": _POST + b"Transfer-Encoding: identity, chunked\r\n\r\n" + _END,
    "chunked, identity": _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + _END,
    "identity, and another line chunked": _POST
    + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _END,
    "chunked twice": _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + _END,
    "chunked, chunked": _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + _END,
    "chunked, and another line": _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + _END,
    "xchunked": _POST + b"Transfer-Encoding: xchunked\r\n\r\n" + _END,
    "gzip, chunked": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + _END,
    "chunked with a parameter": _POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + _END,
    "chunked in quotes": _POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + _END,
    "chunked after a comma": _POST + b"Transfer-Encoding: ,chunked\r\n\r\n" + _END,
    "chunked after a vertical tab": _POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + _END,
    "chunked on a folded line": _POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + _END,
    "empty encoding": _POST + b"Transfer-Encoding:\r\n\r\n" + _END,
    "chunks of HTTP/1.0": b"POST /v1/x HTTP/1.0\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n" + _END,
    "chunks behind an upgrade with a length": _POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _END,
    "space before the colon of a length": _POST + b"Content-Length : 3\r\n\r\nabc",
    "space before the colon of an encoding": _POST + b"Transfer-Encoding : chunked\r\n\r\n" + _END,
    "tab before the colon": _POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + _END,
    "space before the first name": b"POST /v1/x HTTP/1.1\r\n Transfer-Encoding: chunked\r\n" + _HOST + b"\r\n" + _END,
    "space within a name": _POST + b"X Y: a\r\n\r\n",
    "NUL in a name": _POST + b"Transfer-Encoding\x00: chunked\r\n\r\n" + _END,
    "name that is no ASCII": _POST + b"X\xff: a\r\n\r\n",
    "empty name": _POST + b": a\r\n\r\n",
    "line without a colon": _POST + b"abc\r\n\r\n",
    "folded line": _POST + b"X: a\r\n b\r\n\r\n",
    "line folded by a tab": _POST + b"X: a\r\n\tb\r\n\r\n",
    "folded length": _POST + b"X: a\r\n Content-Length: 3\r\n\r\nabc",
    "bare LF between headers": _POST + b"X: a\nContent-Length: 3\r\n\r\nabc",
    "bare LF at the end": _POST + b"X: a\r\n\n",
    "bare LFs": (_POST + b"\r\n").replace(b"\r\n", b"\n"),
    "bare CR between headers": _POST + b"X: a\rContent-Length: 3\r\n\r\nabc",
    "CR before CRLF": _POST + b"X: a\r\r\nY: b\r\n\r\n",
    "NUL in a value": _POST + b"X: a\x00b\r\n\r\n",
    "control character in a value": _POST + b"X: a\x01b\r\n\r\n",
    "DEL in a value": _POST + b"X: a\x7fb\r\n\r\n",
    "negative chunk": _CHUNKED + b"-1\r\nabc\r\n" + _END,
    "chunk with a sign": _CHUNKED + b"+3\r\nabc\r\n" + _END,
    "chunk with 0x": _CHUNKED + b"0x3\r\nabc\r\n" + _END,
    "chunk after a space": _CHUNKED + b" 3\r\nabc\r\n" + _END,
    "chunk before a space": _CHUNKED + b"3 \r\nabc\r\n" + _END,
    "chunk without a size": _CHUNKED + b"\r\nabc\r\n" + _END,
    "chunk that overflows": _CHUNKED + b"10000000000000003\r\nabc\r\n" + _END,
    "chunk longer than it says": _CHUNKED + b"3\r\nabcd\r\n" + _END,
    "chunk whose size ends in LF": _CHUNKED + b"3\nabc\r\n" + _END,
    "chunk that ends in LF": _CHUNKED + b"3\r\nabc\n" + _END,
    "chunk that ends in CR": _CHUNKED + b"3\r\nabc\r" + _END,
    "chunk extension that ends in LF": _CHUNKED + b"3;a\nabc\r\n" + _END,
    "chunk extension with a CR": _CHUNKED + b"3;a\rb\r\nabc\r\n" + _END,
    "chunk extension with a quoted LF": _CHUNKED + b'3;a="\n"\r\nabc\r\n' + _END,
    "chunk extension with a NUL": _CHUNKED + b"3;\x00\r\nabc\r\n" + _END,
    "length in the trailer": _CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "encoding in the trailer": _CHUNKED + b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer that ends in LF": _CHUNKED + b"3\r\nabc\r\n0\r\n\n",
    "HTTP/2": b"POST /v1/x HTTP/2.0\r\n" + _HOST + b"\r\n",
    "HTTP/1.2": b"POST /v1/x HTTP/1.2\r\n" + _HOST + b"\r\n",
    "HTTP/01.1": b"POST /v1/x HTTP/01.1\r\n" + _HOST + b"\r\n",
    "HTTP/0.9": b"GET /v1/x\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "space after the version": b"POST /v1/x HTTP/1.1 \r\n" + _HOST + b"\r\n",
    "space in the target": b"POST /v1/x y HTTP/1.1\r\n" + _HOST + b"\r\n",
    "tabs in the first line": b"POST\t/v1/x\tHTTP/1.1\r\n" + _HOST + b"\r\n",
    "method in lower case": b"post /v1/x HTTP/1.1\r\n" + _HOST + b"\r\n",
    "two hosts": _POST + _HOST + b"\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "https:// by mistake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("attack", _ATTACKS.values(), ids=_ATTACKS.keys())
async def test_ambiguous_request_is_refused(attack: bytes) -> None:
    async with harness() as running:
        await _refused(running, attack + b"GET /v1/smuggled HTTP/1.1\r\n" + _HOST + b"\r\n", 400)


@pytest.mark.parametrize(
    "framing", [b"3;" + b"x" * 9000, b"0" * 9000 + b"3", b"3\r\nabc\r\n0\r\nX: " + b"x" * 9000], ids=lambda it: it[:3]
)
async def test_endless_framing_is_refused(framing: bytes) -> None:
    async with harness(limits=Limits(head_bytes=1000)) as running:
        client = await running.client()
        await client.send(_CHUNKED)
        await until(lambda: any(not new_connection.is_idle for new_connection in running.gateway.connections))
        assert (await client.ask(framing)).status == 400
        assert await client.rest() == b""
        assert running.peer("a").requests == []


async def test_chunks_of_one_byte_are_accepted() -> None:
    async with harness(limits=Limits(head_bytes=1000)) as running:
        client = await running.client()
        body = post({"model": "a"})[-14:]
        await client.send(_CHUNKED)
        await until(lambda: any(not new_connection.is_idle for new_connection in running.gateway.connections))
        padded = body + b" " * 2000
        await client.send(b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in padded) + _END)
        assert (await client.answer()).status == 200
        assert running.peer("a").requests[0].body == padded


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/../sleep",
        b"/v1/./chat",
        b"/v1//sleep",
        b"/v1/x/..",
        b"/v1/%2e%2e/sleep",
        b"/v1/%2E./sleep",
        b"/v1/..%2fsleep",
        b"/v1/a%5c..%5csleep",
        b"/v1/..\\sleep",
        b"/v1/x#/../../sleep",
        b"/v1/x;/%00",
        b"/v1/%73leep",
        b"/v1/chat/../../wake_up",
        b"/v1/x//",
        b"/v1/x/%2e%2e%2f%2e%2e%2fcollective_rpc",
        b"/v1/\xc0\xae\xc0\xae/sleep",
        b"https://localhost/sleep",
        b"localhost/v1/x",
        b"http://localhost/v1/chat/completions",
        b"*",
    ],
)
async def test_path_with_escapes_or_dots_is_refused(target: bytes) -> None:
    async with harness() as running:
        await _refused(running, b"OPTIONS " + target + b" HTTP/1.1\r\n" + _HOST + b"\r\n", 400)


# Paths of engines outside /v1, as vLLM 0.32 and llama-server b11434 list them, and other spellings of /v1.
_ELSEWHERE = (
    *("/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/release_kv_cache_memory", "/server_info"),
    *("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/pause", "/resume", "/abort_requests"),
    *("/init_weight_transfer_engine", "/update_weights", "/start_profile", "/stop_profile", "/scale_elastic_ep"),
    *("/fault_tolerance/apply", "/inference/v1/generate", "/invocations", "/v2/rerank", "/tokenize", "/load"),
    *("/slots/0?action=erase", "/props", "/lora-adapters", "/models/load", "/models/unload", "/completion", "/tools"),
    *("/cors-proxy", "/infill", "/apply-template", "/v1", "/v1?/chat/completions", "/V1/chat/completions"),
    *("/%76%31/x", "//v1/x", "/x/../v1/x", "/./v1/x", "/v1%2fchat/completions", "/v1;/chat/completions"),
    *("/v1/models/../../sleep", "/v1/models/%2e%2e/%2e%2e/sleep", "/v1/models/a/../../chat/completions"),
)


@pytest.mark.parametrize("path", _ELSEWHERE)
async def test_only_v1_reaches_an_engine(path: str) -> None:
    async with harness() as running:
        client = await running.client()
        for method in ("POST", "DELETE"):
            request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            client = await running.client()
            answer = await client.ask(request.encode())
            assert answer.status in (404, 405)
            assert answer.json()["error"]["source"] == "mmd"
        assert running.peer("a").requests == []


@pytest.mark.parametrize(
    "path",
    ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/load_lora_adapter/", "/v1/unload_lora_adapter?model=a"],
)
async def test_path_that_changes_an_engine_is_refused(path: str) -> None:
    async with harness() as running:
        await _refused(running, post({"lora_name": "x", "lora_path": "/x"}, path), 403)


async def test_model_lookup_accepts_escapes() -> None:
    """The openai client escapes a slash in a name. The gateway lists the models itself, so escapes do no harm."""
    async with harness() as running:
        client = await running.client()
        answer = await client.ask(b"GET /v1/models/%61 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (answer.status, answer.json()["id"]) == (200, "a")


_CHAT, _MESSAGES, _RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


async def test_error_format_depends_on_the_path() -> None:
    async with harness() as running:
        errors = {}
        for path in (_CHAT, _RESPONSES, _MESSAGES, "/v1/messages/count_tokens"):
            client = await running.client()
            errors[path] = (await client.ask(post({"model": "nobody"}, path))).json()
        assert errors[_CHAT] == errors[_RESPONSES]
        assert errors[_CHAT]["error"]["code"] == "model_not_found"
        assert errors[_MESSAGES] == errors["/v1/messages/count_tokens"]
        assert errors[_MESSAGES]["type"] == "error"
        assert errors[_MESSAGES]["error"]["type"] == "not_found_error"
        assert errors[_MESSAGES]["error"]["message"] == errors[_CHAT]["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        (("Origin: https://evil.example",), 403, "permission_error"),
        (("Expect: nothing",), 417, "invalid_request_error"),
    ],
)
async def test_format_of_early_errors_depends_on_the_path(headers: tuple[str, ...], status: int, kind: str) -> None:
    async with harness(limits=Limits(body_bytes=100)) as running:
        client = await running.client()
        answer = await client.ask(post({"model": "a"}, _MESSAGES, *headers))
        assert (answer.status, answer.json()["type"], answer.json()["error"]["type"]) == (status, "error", kind)
        client = await running.client()
        answer = await client.ask(post({"model": "a" * 200}, _MESSAGES))
        assert (answer.status, answer.json()["error"]["type"]) == (413, "request_too_large")


async def test_size_limits() -> None:
    limits = Limits(head_bytes=2000, body_bytes=5000)
    async with harness(limits=limits) as running:
        long_header = b"X: " + b"x" * 2000 + b"\r\n"
        await _refused(running, b"POST /v1/x HTTP/1.1\r\n" + _HOST + long_header + b"\r\n", 431)
        await _refused(running, b"POST /v1/x HTTP/1.1\r\n" + _HOST + long_header, 431)  # that never ends
        await _refused(running, b"GET /v1/" + b"x" * 3000, 431)
        await _refused(running, b"POST /v1/x HTTP/1.1\r\n" + _HOST + b"Content-Length: 5001\r\n\r\n", 413)
        await _refused(running, b"POST /v1/x HTTP/1.1\r\n" + _HOST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n", 413)
        chunked = (
            b"POST /v1/x HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b"x" * 4096 + b"\r\n"
        )
        await _refused(running, chunked + b"1000\r\n" + b"x" * 4096, 413)
        client = await running.client()
        assert (await client.ask(post(b'{"model":"a"}' + b" " * 4987))).status == 200


async def test_size_of_a_slow_head_is_limited() -> None:
    async with harness(limits=Limits(head_bytes=2000)) as running:
        client = await running.client()
        await client.send(b"POST /v1/x HTTP/1.1\r\n" + _HOST)
        answering = await _drip(client, b"X: " + b"x" * 100 + b"\r\n")
        assert answering == 431


async def _drip(client: RawClient, line: bytes) -> int:
    for _ in range(30):
        await client.send(line)
    return (await client.answer()).status


async def test_refused_upload_gets_its_error() -> None:
    """Closing at once, with the upload unread, made the kernel reset the connection: the client never saw why."""
    async with (
        harness(limits=Limits(body_bytes=1000)) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        response = await http.post("/v1/x", content=b"x" * 5_000_000)
        assert response.status_code == 413


async def test_error_waits_for_the_responses_before_it() -> None:
    async with harness() as running:
        client = await running.client()
        await client.send(post({"model": "a"}) + b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400


async def test_unknown_expectation_and_connect_are_refused() -> None:
    async with harness() as running:
        await _refused(running, post({}, "/v1/x", "Expect: 200-maybe"), 417)
        await _refused(running, b"CONNECT example.org:443 HTTP/1.1\r\n" + _HOST + b"\r\n", 405)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/stop", "/status"])
async def test_other_hosts_are_refused(path: str) -> None:
    """An attacker's name that resolves to 127.0.0.1 (DNS rebinding)."""
    async with harness() as running:
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5:8000",
            "",
        ):
            await _refused(running, f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode(), 403)
        await _refused(running, f"POST {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode(), 400)
        two = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nContent-Length: 0\r\n\r\n"
        await _refused(running, two.encode(), 400)
        assert running.models.log == []


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "file://", "http://localhost.evil.example", "http://a@b"]
)
async def test_pages_of_other_sites_are_refused(origin: str) -> None:
    async with harness() as running:
        await _refused(running, post({"model": "a"}, "/v1/x", f"Origin: {origin}"), 403)
        await _refused(running, post({"model": "a"}, "/models/stop", f"Origin: {origin}"), 403)
        assert running.models.log == []


async def test_pages_of_this_machine_are_served() -> None:
    async with harness() as running:
        client = await running.client()
        for origin in (
            "http://localhost:3000",
            "http://127.0.0.1:8000",
            "http://[::1]:1",
            "https://ui.localhost",
        ):
            assert (await client.ask(post({"model": "a"}, "/v1/x", f"Origin: {origin}"))).status == 200


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1:8000", b"127.9.9.9", b"[::1]:8000", b"x.localhost"]
)
def test_loopback_hosts(host: bytes) -> None:
    assert is_loopback_authority(host)
    assert is_loopback_origin(b"http://" + host)


@pytest.mark.parametrize(
    "host", [b"", b"a", b"0.0.0.0", b"[::]", b"[::1", b"x@localhost", b"\xff", b"127.0.0.1.", b"2130706433"]
)
def test_foreign_hosts(host: bytes) -> None:
    assert not is_loopback_authority(host)
    assert not is_loopback_origin(b"http://" + host)

"""Web pages: which Host names they may call the gateway by, and which origins may read its responses."""

from __future__ import annotations

import pytest

from mmd.gateway.http.api_keys import KeyFile, Keyring, Purpose
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import AllowedHosts, own_hostnames
from mmd.gateway.http.policy import ListenerInfo, RequestPolicy
from mmd.gateway.http.request import RequestHead
from mmd.gateway.http.response_head import with_cors_headers
from tests.gateway_peer import EngineRequest, Harness, ReceivedResponse, harness, post

_PAGE = "http://localhost:3000"
_ALLOWED = AllowedHosts(
    ["llm.example.org", "Box", "2001:db8::7"], ["https://chat.example.org", "http://[2001:db8::9]:1/"]
)


@pytest.mark.parametrize(
    ("host", "address", "known"),
    [
        ("llm.example.org", "127.0.0.1", True),
        ("LLM.example.ORG:8000", "127.0.0.1", True),
        ("box:8000", "192.0.2.7", True),
        ("192.0.2.7:8000", "192.0.2.7", True),
        ("192.0.2.8:8000", "192.0.2.7", False),  # not the address that the client connected to
        ("192.0.2.7:8000", "127.0.0.1", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("[2001:db8::1]:8000", "2001:db8:0::1", True),
        ("[fe80::1]", "fe80::1%eth0", True),
        ("[2001:db8::7]", "192.0.2.7", True),
        ("localhost", "192.0.2.7", True),
        ("example.org", "192.0.2.7", False),
        ("xllm.example.org", "192.0.2.7", False),
        ("llm.example.org.evil.example", "192.0.2.7", False),
        ("llm.example.org@evil.example", "192.0.2.7", False),
        ("192.0.2.7", "", False),  # a Unix socket has no address
    ],
)
def test_allowed_hosts(host: str, address: str, known: bool) -> None:
    assert _ALLOWED.is_host(host.encode(), address) is known
    assert _ALLOWED.is_origin(f"http://{host}".encode(), address) is known


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://chat.example.org", True),
        ("HTTPS://Chat.example.org", True),
        ("http://[2001:db8::9]:1", True),
        ("http://chat.example.org", False),
        ("https://chat.example.org:444", False),
        ("https://evil.example/https://chat.example.org", False),
        ("null", False),
        ("chrome-extension://llm.example.org", False),
    ],
)
def test_allowed_origins(origin: str, allowed: bool) -> None:
    assert _ALLOWED.is_origin(origin.encode(), "127.0.0.1") is allowed


def test_own_hostnames() -> None:
    assert all(name == name.lower() for name in own_hostnames())
    assert any(name.endswith(".local") for name in own_hostnames())


def _status(listener: ListenerInfo, **headers: str) -> int | None:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    head = RequestHead.read(b"GET", b"/health", "1.1", True, raw)
    failure = RequestPolicy(Limits(), hosts=_ALLOWED).check(head, listener)
    return failure.status if failure else None


def test_connected_address_is_an_allowed_host() -> None:
    listener = ListenerInfo.of(ListenerKind.MAIN, "192.0.2.7")
    assert _status(listener, host="192.0.2.7:8000") is None
    assert _status(listener, host="192.0.2.7:8000", origin="http://192.0.2.7:8000") is None
    assert _status(listener, host="192.0.2.7:8000", origin="http://192.0.2.9") == 403
    assert _status(ListenerInfo.of(ListenerKind.MAIN, "127.0.0.1"), host="192.0.2.7:8000") == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", ["Sec-Fetch-Site: cross-site"], 403),
        ("POST", ["Sec-Fetch-Site: cross-site", "Content-Type: text/plain"], 403),
        ("POST", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 403),  # a form
        ("POST", ["Sec-Fetch-Site: cross-site", "Origin: null"], 403),
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], 403),  # an image
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 200),  # a link
        ("POST", ["Sec-Fetch-Site: cross-site", f"Origin: {_PAGE}"], 200),
        ("POST", ["Sec-Fetch-Site: same-origin"], 200),
        ("POST", ["Sec-Fetch-Site: none"], 200),
        ("POST", ["Content-Type: text/plain"], 200),  # no browser
    ],
)
async def test_cross_site_requests(method: str, headers: list[str], status: int) -> None:
    async with harness() as running:
        client = await running.client()
        request = post({"model": "a"}, "/v1/x", *headers).replace(b"POST", method.encode(), 1)
        assert (await client.ask(request)).status == status
        assert len(running.peer("a").requests) == (status == 200)


async def _preflight(running: Harness, *headers: str, path: str = "/v1/chat/completions") -> ReceivedResponse:
    client = await running.client()
    lines = [f"OPTIONS {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    await client.send("\r\n".join(lines).encode())
    status, answered = await client.head()
    answer = ReceivedResponse(status, answered, b"")
    if status != 204:
        return answer
    await client.send(post({"model": "a"}))  # the connection goes on
    assert (await client.answer()).status == 200
    return answer


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/stop"])
async def test_gateway_responds_to_preflights(path: str) -> None:
    async with harness(active=None) as running:
        running.models.active = "a"
        headers = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type")
        answer = await _preflight(running, f"Origin: {_PAGE}", *headers, path=path)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == _PAGE
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert [one.first_line.split()[0] for one in running.peer("a").requests] == ["POST"]
        assert (await _preflight(running, "Origin: https://evil.example", *headers, path=path)).status == 403


async def test_preflight_needs_no_key_and_errors_have_cors_headers() -> None:
    KeyFile().add("a", Purpose.INFERENCE)
    async with harness(policy=RequestPolicy(Limits(), keyring=Keyring())) as running:
        client = await running.client()
        request = f"OPTIONS /v1/x HTTP/1.1\r\nHost: localhost\r\nOrigin: {_PAGE}\r\n"
        await client.send(f"{request}Access-Control-Request-Method: POST\r\n\r\n".encode())
        assert (await client.head())[0] == 204
        answer = await client.ask(post({"model": "a"}, "/v1/x", f"Origin: {_PAGE}"))
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, _PAGE)


async def test_engines_cors_headers_are_replaced() -> None:
    async def answer(received: EngineRequest) -> None:
        await received.answer(
            b"{}", extra="Access-Control-Allow-Origin: *\r\naccess-control-expose-headers: x\r\nX: y\r\n"
        )

    async with harness() as running:
        running.peer("a").on["/v1/x"] = answer
        client = await running.client()
        answered = await client.ask(post({"model": "a"}, "/v1/x", f"Origin: {_PAGE}"))
        assert answered.headers["access-control-allow-origin"] == _PAGE
        assert (answered.headers["vary"], answered.headers["x"]) == ("origin", "y")
        assert "access-control-expose-headers" not in answered.headers
        plain = await client.ask(post({"model": "a"}, "/v1/x"))
        assert plain.headers["access-control-allow-origin"] == "*"  # passed through unchanged
        wrong = await client.ask(post({"model": "zzz"}, "/v1/x", f"Origin: {_PAGE}"))
        assert (wrong.status, wrong.headers["access-control-allow-origin"]) == (404, _PAGE)


async def test_stream_has_cors_headers() -> None:
    async def stream(received: EngineRequest) -> None:
        await received.begin_stream(b"data: 1\n\n")
        await received.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with harness() as running:
        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        answered = await client.ask(post({"model": "a"}, "/v1/x", f"Origin: {_PAGE}"))
        assert answered.headers["access-control-allow-origin"] == _PAGE
        assert answered.body == b"data: 1\n\ndata: 2\n\n"


async def test_management_has_cors_headers() -> None:
    async with harness() as running:
        client = await running.client()
        answered = await client.ask(f"GET /status HTTP/1.1\r\nHost: localhost\r\nOrigin: {_PAGE}\r\n\r\n".encode())
        assert answered.headers["access-control-allow-origin"] == _PAGE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nLEAVE\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nx\r\n\r\ny", b"HTTP/1.1 200 OK\r\nA: b\r\nLEAVE\r\n\r\nx\r\n\r\ny"),
        (
            b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nLEAVE\r\n\r\n",
        ),
        (b"HTTP/1.1 101 Switching\r\n\r\n\x81\x01a", b"HTTP/1.1 101 Switching\r\nLEAVE\r\n\r\n\x81\x01a"),
    ],
)
def test_cors_headers_are_in_the_final_head(before: bytes, after: bytes) -> None:
    leave = b"access-control-allow-origin: http://a\r\nvary: origin"
    assert with_cors_headers(before, b"http://a") == after.replace(b"LEAVE", leave)

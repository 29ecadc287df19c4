"""WebSockets below /v1: after the engine has switched, bytes pass unread; before that they do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from mmd.gateway.http.limits import Limits
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, Harness, RawClient, harness, post, until

_AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_FRAME = b"\x81\x85\x01\x02\x03\x04abcde"


def _offer(target: str = "/v1/realtime", *more: str) -> bytes:
    lines = (
        f"GET {target} HTTP/1.1",
        "Host: localhost",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *more,
        "",
        "",
    )
    return "\r\n".join(lines).encode()


async def _agree(received: EngineRequest) -> None:
    """Switch, then echo everything until the client closes."""
    await received.send(_AGREED)
    while data := await received.reader.read(65536):
        await received.send(data)


async def _joined(running: Harness, target: str = "/v1/realtime", then: bytes = b"") -> RawClient:
    client = await running.client()
    await client.send(_offer(target) + then)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await client.reader.readexactly(len(_AGREED)) == _AGREED
    return client


async def _says_back(client: RawClient, data: bytes) -> bool:
    await client.send(data)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await client.reader.readexactly(len(data)) == data


async def test_bytes_pass_both_ways() -> None:
    async with harness() as running:
        running.peer("a").on["/v1/realtime"] = _agree
        client = await _joined(running)
        (received,) = running.peer("a").requests
        assert (received.values("connection"), received.values("upgrade")) == (["Upgrade"], ["websocket"])
        assert received.values("sec-websocket-key") == ["dGhlIHNhbXBsZSBub25jZQ=="]
        for frame in (_FRAME, b"\x82\xfe\x10\x00" + b"x" * 4100, b"GET /sleep HTTP/1.1\r\n\r\n"):
            assert await _says_back(client, frame)


async def test_query_names_the_model() -> None:
    async with harness("a", "b") as running:
        running.peer("b").on["/v1/realtime?model=b"] = _agree
        client = await _joined(running, "/v1/realtime?model=b")
        assert await _says_back(client, _FRAME)
        assert running.models.log == ["activate b", "ready b"]
        assert running.peer("a").requests == []


async def test_frames_sent_with_the_request_are_forwarded() -> None:
    async with harness() as running:
        running.peer("a").on["/v1/realtime"] = _agree
        client = await _joined(running, then=_FRAME)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await client.reader.readexactly(len(_FRAME)) == _FRAME


async def test_data_after_a_refused_switch_is_dropped() -> None:
    """If the refusal were ignored, the client's next bytes would reach the engine unchecked: /sleep, for instance."""
    async with harness() as running:

        async def refuse(received: EngineRequest) -> None:
            await received.answer(b"{}", status="403 Forbidden")

        running.peer("a").on["/v1/realtime"] = refuse
        client = await running.client()
        await client.send(_offer() + b"POST /sleep HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer()).status == 403
        assert await client.rest() == b""
        assert [received.target for received in running.peer("a").requests] == ["/v1/realtime"]


async def test_unrequested_switch_is_an_error() -> None:
    async with harness() as running:
        running.peer("a").on["/v1/chat/completions"] = _agree
        client = await running.client()
        assert (await client.ask(post({"model": "a"}))).status == 502


@pytest.mark.parametrize(
    "offer",
    [
        _offer("/v1/models"),
        _offer("/sleep"),
        _offer("/v1/load_lora_adapter"),
        _offer("/v1/../sleep"),
        _offer("/v1/realtime", "Origin: https://evil.example"),
        _offer().replace(b"Host: localhost", b"Host: evil.example"),
    ],
)
async def test_websocket_outside_v1_is_refused(offer: bytes) -> None:
    async with harness() as running:
        client = await running.client()
        answer = await client.ask(offer)
        assert answer.status in (200, 400, 403, 404)
        assert running.peer("a").requests == []


@pytest.mark.parametrize(
    "offer",
    [
        _offer("/v1/x", "Content-Length: 0"),
        _offer("/v1/x").replace(b"GET", b"OPTIONS"),
        _offer("/v1/x").replace(b"websocket", b"h2c"),
    ],
)
async def test_other_upgrade_offers_are_ignored(offer: bytes) -> None:
    async with harness() as running:
        client = await running.client()
        assert (await client.ask(offer)).status == 200
        (received,) = running.peer("a").requests
        assert received.values("upgrade") == []
        assert (await client.ask(post({"model": "a"}))).status == 200  # HTTP continues


async def test_websocket_to_an_unknown_model_is_refused() -> None:
    async with harness() as running:
        client = await running.client()
        assert (await client.ask(_offer("/v1/realtime?model=c"))).status == 404
        assert await client.rest() == b""


async def test_closing_one_side_closes_the_other() -> None:
    async with harness() as running:
        gone = asyncio.Event()

        async def last_word(received: EngineRequest) -> None:
            await received.send(_AGREED + b"\x88\x02\x03\xe8")
            received.writer.close()

        async def wait(received: EngineRequest) -> None:
            await received.send(_AGREED)
            await received.gone()
            gone.set()

        running.peer("a").on |= {"/v1/last": last_word, "/v1/wait": wait}
        client = await _joined(running, "/v1/last")
        assert await client.rest() == b"\x88\x02\x03\xe8"
        client = await _joined(running, "/v1/wait")
        client.disconnect()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gone.wait()


async def test_swap_waits_for_a_websocket_until_the_drain_limit() -> None:
    async with harness("a", "b", limits=Limits(drain_seconds=0.3, min_residency_seconds=0)) as running:
        running.peer("a").on["/v1/realtime"] = _agree
        client = await _joined(running)
        other = await running.client()
        assert (await other.ask(post({"model": "b"}))).status == 200
        assert running.models.drain_seconds >= 0.3
        running.models.swapped_away("a")  # its engine sleeps and stays silent
        assert await client.rest() == b""  # the missing close frame shows that it was cut


async def test_closed_websocket_does_not_delay_a_swap() -> None:
    async with harness("a", "b", limits=Limits(drain_seconds=PATIENCE_SECONDS)) as running:
        running.peer("a").on["/v1/realtime"] = _agree
        client = await _joined(running)
        other = await running.client()
        await other.send(post({"model": "b"}))
        assert await _says_back(client, _FRAME)
        client.disconnect()
        assert (await other.answer()).status == 200


async def test_slow_websocket_client_pauses_the_engine() -> None:
    """Otherwise the gateway would buffer what the client does not read."""
    async with harness() as running:
        sent = 0
        piece = b"x" * 65536

        async def flood(received: EngineRequest) -> None:
            nonlocal sent
            await received.send(_AGREED)
            while True:
                await received.send(piece)
                sent += len(piece)

        running.peer("a").on["/v1/realtime"] = flood
        with socket.create_connection(("127.0.0.1", running.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            slow.send(_offer())
            await until(lambda: sent > 0)
            await _stands_still(lambda: sent)
            assert sent < 64 << 20


async def _stands_still(count: Callable[[], int]) -> None:
    """Wait until nothing has been sent for many turns of the loop, in which all three could have run."""
    unchanged, last = 0, -1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while unchanged < 500:
            now = count()
            unchanged = unchanged + 1 if now == last else 0
            last = now
            await asyncio.sleep(0)

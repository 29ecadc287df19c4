"""Clients that disconnect and engines that die, in each phase of a request."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from mmd.errors import EngineFailed
from mmd.gateway.http.limits import Limits
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, Harness, harness, post, until

_CHAT = {"model": "a"}


async def _idle(running: Harness) -> None:
    """Wait until the gateway has noticed that all clients are gone."""
    await until(lambda: not running.gateway.connections)
    assert running.gateway.scheduler.in_flight_count == 0


async def test_client_that_disconnects_cancels_its_request() -> None:
    async with harness() as running:
        noticed = asyncio.Event()

        async def think(received: EngineRequest) -> None:
            await received.gone()
            noticed.set()

        running.peer("a").on["/v1/x"] = think
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await running.peer("a").has_received(1)
        client.disconnect()
        await asyncio.wait_for(noticed.wait(), PATIENCE_SECONDS)
        await _idle(running)


async def test_client_that_disconnects_cancels_its_stream() -> None:
    async with harness() as running:
        noticed = asyncio.Event()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            await received.gone()
            noticed.set()

        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await client.head()
        client.disconnect()
        await asyncio.wait_for(noticed.wait(), PATIENCE_SECONDS)
        await _idle(running)


async def test_two_hundred_clients_disconnect_at_once() -> None:
    async with harness() as running:

        async def think(received: EngineRequest) -> None:
            await received.gone()

        running.peer("a").on["/v1/x"] = think
        clients = [await running.client() for _ in range(200)]
        for client in clients:
            await client.send(post(_CHAT, "/v1/x"))
        await running.peer("a").has_received(200)
        for client in clients:
            client.disconnect()
        await _idle(running)
        assert (await (await running.client()).ask(post(_CHAT))).status == 200


async def test_engine_death_before_the_response_is_an_error() -> None:
    async with harness() as running:

        async def die(received: EngineRequest) -> None:
            received.die()

        running.peer("a").on["/v1/x"] = die
        client = await running.client()
        answer = await client.ask(post(_CHAT, "/v1/x"))
        assert answer.status == 502
        error = answer.json()["error"]
        assert (error["code"], error["source"], error["hint"]) == (
            "engine_died",
            "mmd",
            "mmd logs a   # shows why",
        )
        assert len(running.peer("a").requests) == 1  # not retried: the engine may have started to work on it
        assert (await client.ask(post(_CHAT))).status == 200


async def test_timed_out_idle_connection_is_replaced() -> None:
    async with harness() as running:
        drop = True

        async def drop_reused(received: EngineRequest) -> None:
            nonlocal drop
            if drop:
                drop = False
                received.die()
            else:
                await received.answer(b"{}")

        running.peer("a").on["/v1/x"] = drop_reused
        client = await running.client()
        assert (await client.ask(post(_CHAT))).status == 200  # leaves an idle connection
        assert (await client.ask(post(_CHAT, "/v1/x"))).status == 200
        assert running.peer("a").connections == 2


async def test_request_is_retried_only_once() -> None:
    async with harness() as running:

        async def die(received: EngineRequest) -> None:
            received.die()

        running.peer("a").on["/v1/x"] = die
        client = await running.client()
        await client.ask(post(_CHAT))
        assert (await client.ask(post(_CHAT, "/v1/x"))).status == 502
        assert len(running.peer("a").requests) == 3


async def test_broken_stream_ends_with_an_error_event() -> None:
    async with harness() as running:

        async def break_off(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n", b"data: unfin")
            received.writer.close()

        running.peer("a").on["/v1/x"] = break_off
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        assert await client.chunk() == b"data: unfin"
        event = await client.chunk()
        assert event.startswith(b'\n\ndata: {"error": {"message": "a ended in the middle') and event.endswith(b"\n\n")
        assert b'"source": "mmd"' in event
        assert await client.rest() == b""  # without the last chunk: HTTP libraries raise here


async def test_format_of_error_events_depends_on_the_path() -> None:
    async with harness() as running:

        async def break_off(received: EngineRequest) -> None:
            await received.begin_stream(b"event: x\ndata: 1\n\n")
            received.writer.close()

        events = {}
        for path in ("/v1/messages", "/v1/responses"):
            running.peer("a").on[path] = break_off
            client = await running.client()
            await client.send(post(_CHAT, path))
            await client.head()
            assert await client.chunk() == b"event: x\ndata: 1\n\n"
            head, _, data = (await client.chunk()).decode().strip().partition("\n")
            assert head == "event: error"
            events[path] = json.loads(data.removeprefix("data: "))
        said = "a ended in the middle of this response"
        message = events["/v1/messages"]
        assert (message["type"], message["error"]["type"], message["error"]["message"]) == ("error", "api_error", said)
        response = events["/v1/responses"]
        assert (response["type"], response["code"], response["message"]) == ("error", "engine_died", said)
        assert response["error"]["message"] == said  # the openai client raises because of this


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n10\r\ndata: ",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\ndata: 1\r\n",
    ],
)
async def test_incomplete_response_that_takes_no_event_is_cut(begun: bytes) -> None:
    async with harness() as running:

        async def break_off(received: EngineRequest) -> None:
            await received.send(begun)
            received.writer.close()

        running.peer("a").on["/v1/x"] = break_off
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        assert await client.rest() == begun


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"])
async def test_engine_death_before_the_body_is_an_error(head: bytes) -> None:
    """Nothing has been forwarded by then, so the client can get an error response."""
    async with harness() as running:

        async def break_off(received: EngineRequest) -> None:
            await received.send(head)
            received.writer.close()

        running.peer("a").on["/v1/x"] = break_off
        client = await running.client()
        assert (await client.ask(post(_CHAT, "/v1/x"))).status == 502
        assert (await client.ask(post(_CHAT))).status == 200


async def test_response_without_body_or_length_is_forwarded() -> None:
    async with harness() as running:

        async def nothing(received: EngineRequest) -> None:
            await received.send(b"HTTP/1.1 200 OK\r\nX-Y: z\r\n\r\n")
            received.writer.close()

        running.peer("a").on["/v1/x"] = nothing
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nX-Y: z\r\n\r\n"


async def test_incomplete_response_to_http10_is_visible() -> None:
    """The end of the connection is the end of the body, so only a reset or an event shows that it is incomplete."""
    async with harness() as running:

        async def plain(received: EngineRequest) -> None:
            await received.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            received.writer.close()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            received.writer.close()

        running.peer("a").on |= {"/v1/plain": plain, "/v1/stream": stream}
        client = await running.client()
        await client.send(b"GET /v1/plain HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        client = await running.client()
        await client.send(b"GET /v1/stream HTTP/1.0\r\n\r\n")
        assert (await client.rest()).partition(b"data: 1\n\n")[2].startswith(b'\n\ndata: {"error"')


@pytest.mark.parametrize(
    "nonsense", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n"]
)
async def test_malformed_response_is_an_error(nonsense: bytes) -> None:
    async with harness() as running:

        async def babble(received: EngineRequest) -> None:
            await received.send(nonsense)
            await received.gone()

        running.peer("a").on["/v1/x"] = babble
        client = await running.client()
        answer = await client.ask(post(_CHAT, "/v1/x"))
        assert (answer.status, answer.json()["error"]["code"]) == (502, "engine_died")


async def test_unrequested_data_closes_the_engine_connection() -> None:
    async with harness() as running:
        closed = asyncio.Event()

        async def push(received: EngineRequest) -> None:
            await received.answer(b"{}")
            await received.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            await received.gone()
            closed.set()

        running.peer("a").on["/v1/x"] = push
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await asyncio.wait_for(closed.wait(), PATIENCE_SECONDS)
        other = await running.client()
        assert b"poison" not in (await other.ask(post(_CHAT))).body


async def test_dead_engine_is_activated_again_once() -> None:
    """The watched state of the units may lag: a refused connection makes the gateway load the model again."""
    async with harness() as running:
        running.models.restarts = True
        await running.peer("a").stop()
        clients = [await running.client() for _ in range(10)]
        answers = await asyncio.gather(*(client.ask(post(_CHAT)) for client in clients))
        assert [answer.status for answer in answers] == [200] * 10
        assert running.models.log.count("activate a") == 1


async def test_unreachable_engine_is_an_error() -> None:
    async with harness() as running:
        await running.peer("a").stop()
        client = await running.client()
        answer = await client.ask(post(_CHAT))
        assert (answer.status, answer.json()["error"]["code"]) == (503, "engine_failed")
        assert running.models.log == ["activate a", "ready a"]
        running.models.failing["a"] = EngineFailed("a exited with status 1", hint="mmd logs a")
        assert (await client.ask(post(_CHAT))).json()["error"]["message"] == "a exited with status 1"


async def test_full_backlog_is_an_error() -> None:
    async with harness(limits=Limits(connect_seconds=0.1)) as running:
        peer = running.peer("a")
        await peer.stop()
        with _FullBacklog(peer.address):
            answer = await (await running.client()).ask(post(_CHAT))
            assert answer.status == 503
            assert "busy" in answer.json()["error"]["message"]


async def test_temporarily_full_backlog_is_waited_for() -> None:
    """asyncio's own connect mistakes the full backlog of a Unix socket for success, and the request is lost."""
    async with harness() as running:
        peer = running.peer("a")
        await peer.stop()
        with _FullBacklog(peer.address) as full:
            client = await running.client()
            asking = asyncio.create_task(client.ask(post(_CHAT)))
            await full.accept_all(asking)
            assert (await asking).body == b"{}"


class _FullBacklog:
    """An engine that accepts no connection until told to."""

    def __init__(self, address: str) -> None:
        Path(address).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(0)
        self._filler = socket.socket(socket.AF_UNIX)
        self._filler.connect(address)
        self._listener.setblocking(False)

    def __enter__(self) -> _FullBacklog:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._filler.close()

    async def accept_all(self, asking: asyncio.Task[object]) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await asyncio.sleep(0.01)  # no event shows that the gateway has failed to connect
        first, _ = await loop.sock_accept(self._listener)
        first.close()
        second, _ = await asyncio.wait_for(loop.sock_accept(self._listener), PATIENCE_SECONDS)
        second.setblocking(False)
        await loop.sock_recv(second, 4096)
        await loop.sock_sendall(second, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        second.close()

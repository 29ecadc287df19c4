"""The gateway shuts down: running responses finish, and no request on its way is lost."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from mmd.gateway.http.limits import Limits
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, chunk, harness, post, until

_CHAT = {"model": "a"}
_TURNS = 10  # of the event loop, enough to notice a closed connection


async def test_request_during_drain_is_answered_with_connection_close() -> None:
    async with harness(limits=Limits(grace_seconds=PATIENCE_SECONDS)) as running:
        client, kept = await running.client(), await running.client()
        assert "connection" not in (await kept.ask(post(_CHAT))).headers
        draining = asyncio.create_task(running.gateway.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)  # it has started
        for either in (client, kept):
            answer = await either.ask(post(_CHAT))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await either.rest() == b""
        await draining


async def test_own_response_during_drain_announces_close() -> None:
    async with harness(limits=Limits(grace_seconds=PATIENCE_SECONDS)) as running:
        client = await running.client()
        draining = asyncio.create_task(running.gateway.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        lines = ["OPTIONS /v1/models HTTP/1.1", "Host: localhost", "Origin: http://localhost:3000"]
        await client.send("\r\n".join([*lines, "Access-Control-Request-Method: GET", "", ""]).encode())
        status, headers = await client.head()
        assert (status, headers["connection"]) == (204, "close")
        assert await client.rest() == b""
        await draining


async def test_idle_client_does_not_delay_the_end() -> None:
    async with harness(limits=Limits(grace_seconds=0.01)) as running:
        client = await running.client()
        await client.ask(post(_CHAT))
        silent = await running.client()
        await running.gateway.drain(PATIENCE_SECONDS)
        assert (await client.rest(), await silent.rest()) == (b"", b"")


async def test_started_stream_is_not_edited() -> None:
    """A request that its client sends afterwards is served, too: the stream could not announce the close."""
    async with harness(limits=Limits(grace_seconds=PATIENCE_SECONDS)) as running:
        go_on = asyncio.Event()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            await go_on.wait()
            await received.send(chunk(b"HTTP/1.1 is spoken\n\n") + b"0\r\n\r\n")

        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        draining = asyncio.create_task(running.gateway.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        go_on.set()
        assert await client.chunk() == b"HTTP/1.1 is spoken\n\n"
        assert await client.chunk() == b""
        answer = await client.ask(post(_CHAT))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await draining


async def test_grace_for_the_next_request_starts_at_the_responses_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to start with the drain, and could be over before the client had read its response."""
    loop, ahead_seconds = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: monotonic() + ahead_seconds)
    async with harness(limits=Limits(grace_seconds=PATIENCE_SECONDS)) as running:
        go_on = asyncio.Event()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            await go_on.wait()
            await received.send(b"0\r\n\r\n")

        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        draining = asyncio.create_task(running.gateway.drain(10 * PATIENCE_SECONDS))
        await asyncio.sleep(0)
        ahead_seconds += 0.9 * PATIENCE_SECONDS
        go_on.set()
        assert await client.chunk() == b""
        ahead_seconds += 0.2 * PATIENCE_SECONDS
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        assert (await client.ask(post(_CHAT))).status == 200
        await draining


async def test_waiting_request_is_served_during_drain() -> None:
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        client = await running.client()
        asking = asyncio.create_task(client.ask(post({"model": "b"})))
        await until(lambda: "activate b" in running.models.log)
        draining = asyncio.create_task(running.gateway.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        running.models.held["b"].set()
        assert (await asking).status == 200
        await draining


async def test_last_response_has_cors_headers() -> None:
    """Announcing the close used to replace the CORS headers."""
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        client = await running.client()
        asking = asyncio.create_task(client.ask(post({"model": "b"}, "/v1/x", "Origin: http://localhost:3000")))
        await until(lambda: "activate b" in running.models.log)
        draining = asyncio.create_task(running.gateway.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        running.models.held["b"].set()
        answer = await asking
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
        await draining

"""/events and /ws: a snapshot, then events; no listener can delay the gateway."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from mmd.codec import to_builtins
from mmd.control.state import swap_events
from mmd.control.state.status import Status
from mmd.control.state.swap_events import SwapEvent
from mmd.errors import ManagerUnreachable
from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.feed import EventKind
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, Harness, RawClient, harness, post, until


@pytest.fixture
async def running() -> AsyncIterator[Harness]:
    async with harness("a", "b", limits=Limits(min_residency_seconds=0, resources_seconds=0.5)) as running:
        yield running


class Stream:
    """The events of /events, as records."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    @classmethod
    async def open(cls, running: Harness) -> Stream:
        client = await running.client()
        await client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        return cls(client)

    async def next(self) -> dict[str, Any]:
        lines = dict(line.split(": ", 1) for line in (await self.client.chunk()).decode().splitlines() if line)
        return {"event": lines["event"], "id": int(lines["id"]), "data": json.loads(lines["data"])}

    async def ends(self) -> None:
        assert (await self.client.rest()).endswith(b"0\r\n\r\n")


class Socket:
    """The events of /ws."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    @classmethod
    async def open(cls, running: Harness) -> Socket:
        client = await running.client()
        await client.send(upgrade())
        status, headers = await client.head()
        assert (status, headers["upgrade"]) == (101, "websocket")
        return cls(client)

    async def next(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == Opcode.TEXT
        record: dict[str, Any] = json.loads(payload)
        return record

    async def ends(self) -> None:
        opcode, payload = await self.frame()
        assert (opcode, payload[:2]) == (Opcode.CLOSE, b"\x03\xe9")  # 1001, going away

    async def frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            first, length = await self.client.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.client.reader.readexactly(2))
            return first & 0x0F, await self.client.reader.readexactly(length)


def upgrade(*more: str, path: str = "/ws") -> bytes:
    lines = [
        *(f"GET {path} HTTP/1.1", "Host: localhost", "Connection: keep-alive, Upgrade", "Upgrade: websocket"),
        *(f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}", "Sec-WebSocket-Version: 13"),
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


Listener = Stream | Socket
both = pytest.mark.parametrize("listen", [Stream.open, Socket.open], ids=["events", "ws"])


async def present(listener: Listener) -> list[dict[str, Any]]:
    return [await listener.next() for _ in range(3)]


async def next_of(listener: Listener, kind: str) -> dict[str, Any]:
    while (notice := await listener.next())["event"] != kind:
        pass
    return notice


@both
async def test_snapshot_comes_first(running: Harness, listen: Callable[[Harness], Awaitable[Listener]]) -> None:
    status, queue, resources = await present(await listen(running))
    assert status == {"event": "status", "id": 0, "data": to_builtins(await running.models.status())}
    assert queue == {"event": "queue", "id": 0, "data": {"turns": [], "in_flight": []}}
    assert resources["data"] == to_builtins(await running.models.resources())


@both
async def test_events_follow_the_snapshot(running: Harness, listen: Callable[[Harness], Awaitable[Listener]]) -> None:
    listener = await listen(running)
    await present(listener)
    running.gateway.feed.publish(EventKind.DOWNLOAD, {"repo": "ü"})
    notice = await next_of(listener, "download")
    assert notice["data"] == {"repo": "ü"}
    assert notice["id"] > 0


@both
async def test_resources_are_published_often(
    running: Harness, listen: Callable[[Harness], Awaitable[Listener]]
) -> None:
    listener = await listen(running)
    await present(listener)
    assert (await next_of(listener, "resources"))["data"] == to_builtins(await running.models.resources())


@both
async def test_streams_end_with_the_gateway(running: Harness, listen: Callable[[Harness], Awaitable[Listener]]) -> None:
    listener = await listen(running)
    await present(listener)
    await asyncio.wait_for(running.gateway.drain(PATIENCE_SECONDS), PATIENCE_SECONDS / 2)
    await listener.ends()


@both
async def test_disconnected_client_is_forgotten(
    running: Harness, listen: Callable[[Harness], Awaitable[Listener]]
) -> None:
    listener = await listen(running)
    await present(listener)
    assert running.gateway.feed.has_listeners
    listener.client.disconnect()
    await until(lambda: not running.gateway.feed.has_listeners)


@both
async def test_stalled_client_is_disconnected(
    running: Harness, listen: Callable[[Harness], Awaitable[Listener]]
) -> None:
    """Its connection is aborted: otherwise unsent data would stay in memory for as long as the client likes."""
    stalled = await listen(running)
    stalled.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    brisk = await Stream.open(running)
    await present(brisk)
    for number in range(600):
        running.gateway.feed.publish(EventKind.DOWNLOAD, {"number": number, "much": "x" * 50_000})
        assert (await next_of(brisk, "download"))["data"]["number"] == number
    await until(lambda: running.gateway.feed.listener_count == 1)
    stalled.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        while True:
            await stalled.next()
    await next_of(brisk, "resources")


async def test_status_follows_a_change(running: Harness) -> None:
    stream = await Stream.open(running)
    await present(stream)
    running.models.swapped_away("a")
    assert (await next_of(stream, "status"))["data"]["active"] is None


async def test_many_changes_publish_one_status(running: Harness) -> None:
    """The units of one swap change a dozen times."""
    stream = await Stream.open(running)
    await present(stream)
    for _ in range(12):
        running.models.swapped_away("a")
    await next_of(stream, "status")
    for _ in range(2):  # the second comes half a second later, long after another status would have come
        while (notice := await stream.next())["event"] != "resources":
            assert notice["event"] != "status"


async def test_swaps_of_other_processes_are_published(running: Harness) -> None:
    stream = await Stream.open(running)
    await present(stream)
    swap_events.keep(swap("a"))
    swap_events.keep(swap("b"))
    running.models.swapped_away("a")  # the change of the units that triggers the read
    assert (await next_of(stream, "swap"))["data"]["model"] == "a"
    told = (await next_of(stream, "swap"))["data"]
    assert (told["model"], told["phases"]) == ("b", {"release": 0.25, "load": 1.5})


async def test_swap_logged_late_is_published(running: Harness) -> None:
    stream = await Stream.open(running)
    await present(stream)
    running.models.swapped_away("a")
    await next_of(stream, "status")
    swap_events.keep(swap("b"))
    assert (await next_of(stream, "swap"))["data"]["model"] == "b"


async def test_head_request_to_events_ends_at_once(running: Harness) -> None:
    client = await running.client()
    await client.send(b"HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.head())[0] == 200
    assert await client.rest() == b""


async def test_unreadable_status_is_an_error_response(running: Harness) -> None:
    async def fails() -> Status:
        raise ManagerUnreachable("no user manager", hint="systemctl --user status")

    running.models.status = fails  # type: ignore[method-assign]
    client = await running.client()
    answer = await client.ask(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (answer.status, answer.json()["error"]["source"]) == (503, "mmd")


async def test_websocket_is_refused_to_other_sites(running: Harness) -> None:
    """Browsers send no preflight for a WebSocket: only its Origin shows which page opens it."""
    client = await running.client()
    answer = await client.ask(upgrade("Origin: https://evil.example"))
    assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")
    assert not running.gateway.feed.has_listeners


async def test_websocket_is_open_to_the_own_page(running: Harness) -> None:
    client = await running.client()
    await client.send(upgrade(f"Origin: {running.url}"))
    assert (await client.head())[0] == 101


async def test_messages_over_the_websocket_are_ignored(running: Harness) -> None:
    socket = await Socket.open(running)
    await present(socket)
    said = FrameProtocol(client=True, extensions=[]).send_data("hello", fin=True)
    await socket.client.send(bytes(said) * 3)
    running.gateway.feed.publish(EventKind.DOWNLOAD, {})
    await next_of(socket, "download")


async def test_upgrade_offers_on_other_paths_are_ignored(running: Harness) -> None:
    client = await running.client()
    answer = await client.ask(upgrade(path="/status"))
    assert answer.status == 200
    client = await running.client()
    assert (await client.ask(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 404


async def test_inference_continues_beside_a_websocket(running: Harness) -> None:
    async def answer(received: EngineRequest) -> None:
        await received.answer(b"{}")

    running.peer("a").on["/v1/x"] = answer
    socket = await Socket.open(running)
    await present(socket)
    client = await running.client()
    assert (await client.ask(post({"model": "a"}, "/v1/x"))).status == 200


def swap(model: str) -> SwapEvent:
    return SwapEvent(
        at="2026-11-21T10:00:00.000+00:00",
        model=model,
        evicted=("a",),
        outcome="resident",
        why="not loaded",
        cause="",
        seconds=1.8,
        phases={"release": 0.25, "load": 1.5},
    )

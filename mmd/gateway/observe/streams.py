"""`/events` and `/ws`: a snapshot of the current state, then the feed's events as they happen.

There are no heartbeats: resources events, published every few seconds while there are listeners, serve as such.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import Receive, Scope, Send

from mmd.codec import encode
from mmd.gateway.observe.feed import Feed, FeedEvent, Subscription
from mmd.gateway.observe.publisher import Publisher
from mmd.tasks import spawn

# How long a client may take to read the rest after its subscription has ended.
_LAST_EVENTS_TIMEOUT_SECONDS = 1.0

_GOING_AWAY = 1001  # RFC 6455, 7.4.1


class StreamClient(Protocol):
    """A client of the feed, over ASGI's `receive` and `send`."""

    def __init__(self, receive: Receive, send: Send) -> None: ...

    async def open(self) -> None:
        """Accept the client."""
        ...

    async def send(self, event: FeedEvent) -> None: ...

    async def disconnected(self) -> None:
        """Return when the client has disconnected."""
        ...

    async def close(self) -> None:
        """End the stream."""
        ...


class EventsEndpoint:
    """An ASGI endpoint that serves the feed to one kind of client."""

    def __init__(self, feed: Feed, publisher: Publisher, kind: type[StreamClient]) -> None:
        self._feed = feed
        self._publisher = publisher
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._kind(receive, send)
        if scope.get("method") == "HEAD":
            await client.open()
            await client.close()
            return
        with self._feed.subscribe() as subscription:
            snapshot = await self._publisher.snapshot()
            await client.open()
            stalled = await _stream(client, snapshot, subscription)
        if stalled:
            scope["state"]["transport"].abort()  # unsent data would stay in memory


async def _stream(client: StreamClient, snapshot: list[FeedEvent], subscription: Subscription) -> bool:
    """Send events until the client disconnects or has got all of them; return True if it stalled instead."""
    sending = spawn("event stream", _send_all(client, snapshot, subscription), logs=False)
    disconnecting = spawn("event stream: client", client.disconnected())
    ending = spawn("event stream: end", subscription.ended())
    try:
        await asyncio.wait((sending, disconnecting, ending), return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait(
            (sending, disconnecting), return_when=asyncio.FIRST_COMPLETED, timeout=_LAST_EVENTS_TIMEOUT_SECONDS
        )
    finally:
        for task in (sending, disconnecting, ending):
            task.cancel()
        await asyncio.wait((sending, disconnecting, ending))
    if sending in done and not sending.cancelled():
        sending.result()
    return not done


async def _send_all(client: StreamClient, snapshot: list[FeedEvent], subscription: Subscription) -> None:
    for event in snapshot:
        await client.send(event)
    async for event in subscription:
        await client.send(event)
    await client.close()


class EventStream:
    """Server-sent events. `Last-Event-ID` is ignored: a client that reconnects gets a snapshot."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def open(self) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, event: FeedEvent) -> None:
        body = b"event: %b\nid: %d\ndata: %b\n\n" % (event.kind.encode(), event.number, encode(event.data))
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class WebSocketStream:
    """One JSON object for each event: {"event", "id", "data"}. Messages from the client are ignored."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def open(self) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept"})

    async def send(self, event: FeedEvent) -> None:
        record = {"event": event.kind, "id": event.number, "data": event.data}
        await self._send({"type": "websocket.send", "text": encode(record).decode()})

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def close(self) -> None:
        await self._send({"type": "websocket.close", "code": _GOING_AWAY})

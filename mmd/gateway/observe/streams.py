"""`/events` and `/ws`: what is in the feed, told to each client as it happens, after how things are when it comes.

There are no heartbeats: resources are published every few seconds while anybody listens, and do for them.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

from starlette.types import Receive, Scope, Send

from mmd.gateway.observe.feed import Feed, FeedEvent, Subscription
from mmd.gateway.observe.publisher import Publisher
from mmd.tasks import spawn

# How long a client may take over what is unread once no more will come.
_LAST_WORDS_SECONDS = 1.0

_GOING_AWAY = 1001  # RFC 6455, 7.4.1


class StreamClient(Protocol):
    """Somebody who listens. Made of what ASGI gives: `receive` and `send`."""

    def __init__(self, receive: Receive, send: Send) -> None: ...

    async def open(self) -> None: ...

    async def send(self, notice: FeedEvent) -> None: ...

    async def disconnected(self) -> None:
        """Returns when the client has gone."""
        ...

    async def close(self) -> None:
        """Nothing more comes."""
        ...


class EventsEndpoint:
    """An ASGI endpoint for one kind of client."""

    def __init__(self, feed: Feed, publisher: Publisher, kind: type[StreamClient]) -> None:
        self._feed = feed
        self._reporter = publisher
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._kind(receive, send)
        if scope.get("method") == "HEAD":
            await client.open()
            await client.close()
            return
        with self._feed.subscribe() as subscription:
            snapshot = await self._reporter.snapshot()
            await client.open()
            stalled = await _stream(client, snapshot, subscription)
        if stalled:
            scope["state"]["transport"].abort()  # what was written to it would wait in memory


async def _stream(client: StreamClient, snapshot: list[FeedEvent], subscription: Subscription) -> bool:
    """Until the client leaves or has been told all; whether it has stalled instead."""
    telling = spawn("event stream", _send_all(client, snapshot, subscription), logs=False)
    leaving = spawn("event stream: client", client.disconnected())
    ending = spawn("event stream: end", subscription.ended())
    try:
        await asyncio.wait((telling, leaving, ending), return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait(
            (telling, leaving), return_when=asyncio.FIRST_COMPLETED, timeout=_LAST_WORDS_SECONDS
        )
    finally:
        for task in (telling, leaving, ending):
            task.cancel()
        await asyncio.wait((telling, leaving, ending))
    if telling in done and not telling.cancelled():
        telling.result()
    return not done


async def _send_all(client: StreamClient, snapshot: list[FeedEvent], subscription: Subscription) -> None:
    for notice in snapshot:
        await client.send(notice)
    async for notice in subscription:
        await client.send(notice)
    await client.close()


class EventStream:
    """Server-sent events. Who comes back is told how things are, and need not say with `Last-Event-ID` where it was."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def open(self) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, notice: FeedEvent) -> None:
        data = json.dumps(notice.data, ensure_ascii=False)
        event = f"event: {notice.kind}\nid: {notice.number}\ndata: {data}\n\n"
        await self._send({"type": "http.response.body", "body": event.encode(), "more_body": True})

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class WebSocketStream:
    """One JSON object for each notice: {"event", "id", "data"}; what the client says is not looked at."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def open(self) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept"})

    async def send(self, notice: FeedEvent) -> None:
        record = {"event": notice.kind, "id": notice.number, "data": notice.data}
        await self._send({"type": "websocket.send", "text": json.dumps(record, ensure_ascii=False)})

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def close(self) -> None:
        await self._send({"type": "websocket.close", "code": _GOING_AWAY})

"""`/events` and `/ws`: what is in the feed, told to each client as it happens, after how things are when it comes.

There are no heartbeats: resources are published every few seconds while anybody listens, and do for them.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

from starlette.types import Receive, Scope, Send

from mmd.gateway.observe.feed import Feed, Notice, Subscription
from mmd.gateway.observe.publisher import Reporter

# How long a client may take over what is unread once no more will come.
_LAST_WORDS_SECONDS = 1.0

_GOING_AWAY = 1001  # RFC 6455, 7.4.1


class Client(Protocol):
    """Somebody who listens. Made of what ASGI gives: `receive` and `send`."""

    def __init__(self, receive: Receive, send: Send) -> None: ...

    async def greet(self) -> None: ...

    async def tell(self, notice: Notice) -> None: ...

    async def leaves(self) -> None:
        """Returns when the client has gone."""
        ...

    async def part(self) -> None:
        """Nothing more comes."""
        ...


class Broadcast:
    """An ASGI endpoint for one kind of client."""

    def __init__(self, feed: Feed, reporter: Reporter, kind: type[Client]) -> None:
        self._feed = feed
        self._reporter = reporter
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._kind(receive, send)
        if scope.get("method") == "HEAD":
            await client.greet()
            await client.part()
            return
        with self._feed.subscribe() as subscription:
            present = await self._reporter.present()
            await client.greet()
            stalled = await _tell(client, present, subscription)
        if stalled:
            scope["state"]["transport"].abort()  # what was written to it would wait in memory


async def _tell(client: Client, present: list[Notice], subscription: Subscription) -> bool:
    """Until the client leaves or has been told all; whether it has stalled instead."""
    telling = asyncio.create_task(_tell_all(client, present, subscription))
    leaving = asyncio.create_task(client.leaves())
    ending = asyncio.create_task(subscription.ended())
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


async def _tell_all(client: Client, present: list[Notice], subscription: Subscription) -> None:
    for notice in present:
        await client.tell(notice)
    async for notice in subscription:
        await client.tell(notice)
    await client.part()


class EventStream:
    """Server-sent events. Who comes back is told how things are, and need not say with `Last-Event-ID` where it was."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def greet(self) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def tell(self, notice: Notice) -> None:
        data = json.dumps(notice.data, ensure_ascii=False)
        event = f"event: {notice.kind}\nid: {notice.number}\ndata: {data}\n\n"
        await self._send({"type": "http.response.body", "body": event.encode(), "more_body": True})

    async def leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def part(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class WebSocketStream:
    """One JSON object for each notice: {"event", "id", "data"}; what the client says is not looked at."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def greet(self) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept"})

    async def tell(self, notice: Notice) -> None:
        record = {"event": notice.kind, "id": notice.number, "data": notice.data}
        await self._send({"type": "websocket.send", "text": json.dumps(record, ensure_ascii=False)})

    async def leaves(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def part(self) -> None:
        await self._send({"type": "websocket.close", "code": _GOING_AWAY})

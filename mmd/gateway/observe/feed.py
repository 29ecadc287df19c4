"""The feed of events behind `/events`, `/ws` and the web page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# A listener with this many unread events has stalled. It is disconnected, and gets a snapshot when it reconnects.
_MAX_UNREAD = 256


class EventKind(StrEnum):
    """The values are the event names that clients see."""

    STATUS = "status"  # the record of GET /status, after every change
    QUEUE = "queue"  # the record of GET /queue, after every change
    RESOURCES = "resources"  # the record of GET /resources, every few seconds
    SWAP = "swap"  # a swap that has ended, with its phases
    DOWNLOAD = "download"  # a download job that began, advanced or ended


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event."""

    number: int
    kind: EventKind
    data: Any  # a record, encoded by the streams


class Subscription:
    """The events of one listener, in order, from its subscription on. Iterate over it to read them."""

    def __init__(self) -> None:
        self._unread: asyncio.Queue[FeedEvent | None] = asyncio.Queue()
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[FeedEvent]:
        while (event := await self._unread.get()) is not None:
            yield event

    def put(self, event: FeedEvent) -> None:
        """Add an event; a listener with too many unread ones is ended instead."""
        if self._unread.qsize() >= _MAX_UNREAD:
            self.end()
        elif not self._ended.is_set():
            self._unread.put_nowait(event)

    def end(self) -> None:
        """Add no further events; unread ones can still be read."""
        if not self._ended.is_set():
            self._ended.set()
            self._unread.put_nowait(None)

    async def ended(self) -> None:
        """Return when no further events are added."""
        await self._ended.wait()


class Feed:
    """Distributes events to the subscriptions; one for a gateway, which owns it."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._count = 0
        self._is_closed = False

    @property
    def has_listeners(self) -> bool:
        return bool(self._subscriptions)

    @property
    def listener_count(self) -> int:
        return len(self._subscriptions)

    def publish(self, kind: EventKind, data: object) -> None:
        self._count += 1
        event = FeedEvent(self._count, kind, data)
        for subscription in self._subscriptions:
            subscription.put(event)

    def current(self, kind: EventKind, data: object) -> FeedEvent:
        """Make an event of the current state for a new listener, with the number of the last published event."""
        return FeedEvent(self._count, kind, data)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._is_closed:
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions, present and future: listeners would otherwise delay the gateway's end."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.end()

"""What happens, told to whoever listens: `/events`, `/ws` and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# A listener that is this far behind has stalled; it is sent away, and comes back for the present state.
_MOST_UNREAD = 256


class EventKind(StrEnum):
    STATUS = "status"  # the record of GET /status, after every change
    QUEUE = "queue"  # the record of GET /queue, after every change
    RESOURCES = "resources"  # the record of GET /resources, from time to time
    SWAP = "swap"  # a swap that has come to its end, with its phases
    DOWNLOAD = "download"  # a download job that began, went on or ended


@dataclass(frozen=True, slots=True)
class FeedEvent:
    number: int
    kind: EventKind
    data: Mapping[str, Any]  # can be written as JSON


class Subscription:
    """One listener's notices, in order, from when it began to listen."""

    def __init__(self) -> None:
        self._unread: asyncio.Queue[FeedEvent | None] = asyncio.Queue()
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[FeedEvent]:
        while (notice := await self._unread.get()) is not None:
            yield notice

    def put(self, notice: FeedEvent) -> None:
        if self._unread.qsize() >= _MOST_UNREAD:
            self.end()
        elif not self._ended.is_set():
            self._unread.put_nowait(notice)

    def end(self) -> None:
        """After what is unread, nothing comes any more."""
        if not self._ended.is_set():
            self._ended.set()
            self._unread.put_nowait(None)

    async def ended(self) -> None:
        """Returns when nothing more comes than what is unread."""
        await self._ended.wait()


class Feed:
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

    def publish(self, kind: EventKind, data: Mapping[str, Any]) -> None:
        self._count += 1
        notice = FeedEvent(self._count, kind, data)
        for subscription in self._subscriptions:
            subscription.put(notice)

    def current(self, kind: EventKind, data: Mapping[str, Any]) -> FeedEvent:
        """How things are after all that has been published, for a listener that has just come."""
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
        """The gateway ends: listeners would otherwise hold it up."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.end()

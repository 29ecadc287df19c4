"""What the feed tells: the status after every change, swaps whoever made them, resources while somebody listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from mmd.control.state.swap_events import SwapEvent
from mmd.control.state.swap_log import SwapLog
from mmd.errors import MmdError
from mmd.gateway.observe.feed import EventKind, Feed, FeedEvent
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import keep_running, spawn

_log = logging.getLogger(__name__)

# A swap changes its units a dozen times in a row.
_SETTLE_SECONDS = 0.1
# After a change, a swap is noted when its phases have been read, or its cause; who does that may be another process.
_LOOKS_SECONDS = (0.1, 0.4, 1.5, 6.0, 24.0)


class Publisher:
    def __init__(self, models: Models, scheduler: Scheduler, feed: Feed, *, resources_seconds: float) -> None:
        """Resources are told that often."""
        self._models = models
        self._scheduler = scheduler
        self._feed = feed
        self._resources_seconds = resources_seconds
        self._swaps = SwapLog()
        self._swap_listeners: list[Callable[[SwapEvent], None]] = []
        self._status_changed = asyncio.Event()
        self._units_changed = asyncio.Event()
        self._resources: asyncio.Task[None] | None = None
        models.follow(self._on_change)

    def follow_swaps(self, listener: Callable[[SwapEvent], None]) -> None:
        """Have `listener` called with every swap that comes to its end."""
        self._swap_listeners.append(listener)

    async def snapshot(self) -> list[FeedEvent]:
        """How things are, for one who has begun to listen; from now on resources are told as well."""
        if self._resources is None or self._resources.done():
            self._resources = spawn("resource events", keep_running("resource events", self._publish_resources))
        return [
            self._feed.current(EventKind.STATUS, await self._models.status()),
            self._feed.current(EventKind.QUEUE, self._scheduler.queue()),
            self._feed.current(EventKind.RESOURCES, await self._models.resources()),
        ]

    def close(self) -> None:
        if self._resources is not None:
            self._resources.cancel()

    def _on_change(self) -> None:
        self._status_changed.set()
        self._units_changed.set()

    async def publish_status(self) -> None:
        """Until cancelled."""
        while True:
            await self._status_changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._status_changed.clear()
            if self._feed.has_listeners:
                await self._publish(EventKind.STATUS, self._models.status)

    async def _publish_resources(self) -> None:
        while True:
            await asyncio.sleep(self._resources_seconds)
            if not self._feed.has_listeners:
                return
            await self._publish(EventKind.RESOURCES, self._models.resources)

    async def _publish(self, kind: EventKind, read: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        try:
            self._feed.publish(kind, await read())
        except MmdError as error:
            _log.warning("the %s cannot be told: %s", kind, error.message)

    async def publish_swaps(self) -> None:
        """Looks into the file of swaps after every change of the units, and a few times more: there is no other sign of
        a swap that another process has made.
        """
        looks: tuple[float, ...] = ()
        while True:
            looks = _LOOKS_SECONDS if await self._units_change(looks[0] if looks else None) else looks[1:]
            for event in self._swaps.news():
                self._feed.publish(EventKind.SWAP, asdict(event))
                for listener in self._swap_listeners:
                    listener(event)

    async def _units_change(self, within_seconds: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._units_changed.wait()
        stirred = self._units_changed.is_set()
        self._units_changed.clear()
        return stirred

"""Publish events: status and queue after changes, swaps of all processes, resources while there are listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mmd.control.state.swap_events import SwapEvent
from mmd.control.state.swap_log import SwapLog
from mmd.errors import MmdError
from mmd.gateway.observe.feed import EventKind, Feed, FeedEvent
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import keep_running, spawn

_log = logging.getLogger(__name__)

# A swap changes its units a dozen times in a row; listeners get one status event.
_SETTLE_SECONDS = 0.1
# Requests come and go by the thousand; listeners get a few queue events a second.
_QUEUE_SECONDS = 0.25
# Delays between the reads of the swap log after units have changed: the process that swapped writes its entry only once
# it has read the phases, or the cause of a failure.
_READ_DELAYS_SECONDS = (0.1, 0.4, 1.5, 6.0, 24.0)


class Publisher:
    """Publishes to one feed; owned by the observer, which runs its loops."""

    def __init__(self, models: Models, scheduler: Scheduler, feed: Feed, *, resources_seconds: float) -> None:
        """`resources_seconds`: the time between two resources events."""
        self._models = models
        self._scheduler = scheduler
        self._feed = feed
        self._resources_seconds = resources_seconds
        self._swaps = SwapLog()
        self._swap_listeners: list[Callable[[SwapEvent], None]] = []
        self._status_changed = asyncio.Event()
        self._units_changed = asyncio.Event()
        self._resources: asyncio.Task[None] | None = None
        self._queue_timer: asyncio.TimerHandle | None = None
        models.follow(self._on_change)
        scheduler.follow(self._on_queue_change)

    def follow_swaps(self, listener: Callable[[SwapEvent], None]) -> None:
        """Call `listener` with every swap that has ended."""
        self._swap_listeners.append(listener)

    async def snapshot(self) -> list[FeedEvent]:
        """Return the current state as events, for a new listener, and begin to publish resources."""
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
        if self._queue_timer is not None:
            self._queue_timer.cancel()

    def _on_change(self) -> None:
        self._status_changed.set()
        self._units_changed.set()

    def _on_queue_change(self) -> None:
        """Called when a request arrives, is admitted or ends: publish the queue soon."""
        if self._feed.has_listeners and self._queue_timer is None:
            self._queue_timer = asyncio.get_running_loop().call_later(_QUEUE_SECONDS, self._publish_queue)

    def _publish_queue(self) -> None:
        self._queue_timer = None
        self._feed.publish(EventKind.QUEUE, self._scheduler.queue())

    async def publish_status(self) -> None:
        """Publish the status after changes, until cancelled."""
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

    async def _publish(self, kind: EventKind, read: Callable[[], Awaitable[object]]) -> None:
        try:
            self._feed.publish(kind, await read())
        except MmdError as error:
            _log.warning("cannot publish %s: %s", kind, error.message)

    async def publish_swaps(self) -> None:
        """Publish swaps, until cancelled. Reads the swap log after changes of the units, and a few times after that:
        another process that swaps gives no other sign of it.
        """
        delays: tuple[float, ...] = ()
        while True:
            has_changed = await self._units_change(delays[0] if delays else None)
            delays = _READ_DELAYS_SECONDS if has_changed else delays[1:]
            for event in await asyncio.to_thread(self._swaps.news):
                self._feed.publish(EventKind.SWAP, event)
                for listener in self._swap_listeners:
                    listener(event)

    async def _units_change(self, within_seconds: float | None) -> bool:
        """Wait for a change of the units; return False on timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._units_changed.wait()
        has_changed = self._units_changed.is_set()
        self._units_changed.clear()
        return has_changed

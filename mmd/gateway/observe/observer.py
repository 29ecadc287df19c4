"""All that watches the gateway at work: what is told, what is counted, what is remembered for an hour."""

from __future__ import annotations

import asyncio
import logging

from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.memory_history import History
from mmd.gateway.observe.metrics_page import Metrics
from mmd.gateway.observe.publisher import Reporter
from mmd.gateway.observe.tokens import EnginePages
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_log = logging.getLogger(__name__)


class Observer:
    def __init__(self, models: Models, switchboard: Scheduler, feed: Feed, meter: Counters, limits: Limits) -> None:
        pages = EnginePages(models, meter)
        self.feed = feed
        self.reporter = Reporter(models, switchboard, feed, resources_seconds=limits.resources_seconds)
        self.history = History(models, interval_seconds=limits.history_seconds)
        self.metrics = Metrics(models, switchboard, feed, meter, pages)
        self._pages = pages
        self._task: asyncio.Task[None] | None = None
        self.reporter.follow_swaps(meter.swapped)
        switchboard.before_swaps(pages.read_before_swap)

    def begin(self) -> None:
        self._task = asyncio.create_task(self._observe())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _observe(self) -> None:
        try:
            await asyncio.gather(self.reporter.run(), self.history.run(), self._pages.run())
        except Exception:  # noqa: BLE001 - models are served all the same; logged with its traceback
            _log.exception("from now on, what happens is neither told nor counted")

"""All that watches the gateway at work: what is told, what is counted, what is remembered for an hour."""

from __future__ import annotations

import asyncio
import logging

from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.memory_history import MemoryHistory
from mmd.gateway.observe.metrics_page import MetricsPage
from mmd.gateway.observe.publisher import Publisher
from mmd.gateway.observe.tokens import EngineScraper
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_log = logging.getLogger(__name__)


class Observer:
    def __init__(self, models: Models, scheduler: Scheduler, feed: Feed, counters: Counters, limits: Limits) -> None:
        scraper = EngineScraper(models, counters)
        self.feed = feed
        self.publisher = Publisher(models, scheduler, feed, resources_seconds=limits.resources_seconds)
        self.history = MemoryHistory(models, interval_seconds=limits.history_seconds)
        self.metrics = MetricsPage(models, scheduler, feed, counters, scraper)
        self._scraper = scraper
        self._task: asyncio.Task[None] | None = None
        self.publisher.follow_swaps(counters.count_swap)
        scheduler.before_swaps(scraper.read_before_swap)

    def begin(self) -> None:
        self._task = asyncio.create_task(self._observe())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _observe(self) -> None:
        try:
            await asyncio.gather(self.publisher.run(), self.history.run(), self._scraper.run())
        except Exception:  # noqa: BLE001 - models are served all the same; logged with its traceback
            _log.exception("from now on, what happens is neither told nor counted")

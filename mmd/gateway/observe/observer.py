"""The parts that observe the gateway: event publisher, metrics, memory history."""

from __future__ import annotations

import asyncio

from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.memory_history import MemoryHistory
from mmd.gateway.observe.metrics_page import MetricsPage
from mmd.gateway.observe.publisher import Publisher
from mmd.gateway.observe.tokens import EngineScraper
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import keep_running, spawn


class Observer:
    """Makes the observing parts and runs their loops; owned by the gateway."""

    def __init__(self, models: Models, scheduler: Scheduler, feed: Feed, counters: Counters, limits: Limits) -> None:
        scraper = EngineScraper(models, counters)
        self.feed = feed
        self.publisher = Publisher(models, scheduler, feed, resources_seconds=limits.resources_seconds)
        self.history = MemoryHistory(models, interval_seconds=limits.history_seconds)
        self.metrics = MetricsPage(models, scheduler, feed, counters, scraper)
        self._scraper = scraper
        self._tasks: list[asyncio.Task[None]] = []
        self.publisher.follow_swaps(counters.count_swap)
        scheduler.before_swaps(scraper.read_before_swap)

    def begin(self) -> None:
        """Start the loops. One that fails starts again after a moment; the others go on meanwhile."""
        loops = {
            "status events": self.publisher.publish_status,
            "swap events": self.publisher.publish_swaps,
            "memory history": self.history.run,
            "engine metrics": self._scraper.run,
        }
        self._tasks = [spawn(name, keep_running(name, run)) for name, run in loops.items()]

    @property
    def running_count(self) -> int:
        """How many of the loops run."""
        return sum(not task.done() for task in self._tasks)

    async def end(self) -> None:
        self.publisher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

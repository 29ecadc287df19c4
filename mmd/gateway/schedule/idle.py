"""Put idle models to sleep, and stop those that have slept for their idle time, as `plan.idle` decides.

Nothing is done for each request: usage is read from the scheduler when an idle time may have passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping
from functools import partial
from time import monotonic

from mmd.errors import MmdError
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.journal import about
from mmd.plan.idle import Due, IdleAction, IdlePlan, Usage, plan_idle

_log = logging.getLogger(__name__)


class IdleUnloader:
    """Unloads idle models. Owns the keep-alive times that requests set, and the times of failed attempts to unload."""

    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler
        self._keep_seconds: dict[str, float] = {}  # of resident models, set by requests
        self._failed_at: dict[str, float] = {}  # when an attempt to unload the model failed
        self._look_when_unused: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        models.follow(self._on_units)
        scheduler.follow(self._on_requests)

    def keep(self, model_id: str, seconds: float) -> None:
        """Keep a resident model for `seconds` after its last response.

        This holds until another request sets another time or the model is unloaded.
        """
        if self._keep_seconds.get(model_id) != seconds:
            self._keep_seconds[model_id] = seconds
            self._changed.set()

    @property
    def keep_seconds(self) -> Mapping[str, float]:
        """For how many seconds after its last response each resident model is kept, as requests asked."""
        return self._keep_seconds

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._changed.clear()
            try:
                idle_plan = await self._look()
            except MmdError as error:
                _log.warning("cannot read idle times: %s", error.message)
                await self._changed.wait()
                continue
            for due in idle_plan.due:
                await self._carry_out(due)
            if not idle_plan.due:
                await self._until(idle_plan.look_at)

    async def _look(self) -> IdlePlan:
        loaded_models = await self._models.loaded_models(keep_alive=self._keep_seconds)
        uses = {loaded.model_id: self._use(loaded.model_id) for loaded in loaded_models}
        idle_plan = plan_idle(loaded_models, uses, monotonic())
        self._look_when_unused = idle_plan.look_when_unused
        return idle_plan

    def _use(self, model_id: str) -> Usage:
        ended = max(
            self._scheduler.idle_since(model_id) or -math.inf,
            self._failed_at.get(model_id, -math.inf),
        )
        return Usage(self._scheduler.is_in_use(model_id), ended, self._keep_seconds.get(model_id))

    async def _carry_out(self, due: Due) -> None:
        try:
            await self._scheduler.idle_out(due.model_id, partial(self._unload, due))
        except MmdError as error:
            # Try again after another idle time, as if the model had been used now.
            self._failed_at[due.model_id] = monotonic()
            self._keep_seconds.pop(due.model_id, None)
            _log.warning("cannot unload %s: %s", due.model_id, error.message, extra=about(due.model_id))

    async def _unload(self, due: Due) -> None:
        fields = about(due.model_id)
        match due.action:
            case IdleAction.SLEEP:
                _log.info("putting %s to sleep: %s", due.model_id, due.why, extra=fields)
                await self._models.sleep(due.model_id)
            case IdleAction.STOP:
                _log.info("stopping %s: %s", due.model_id, due.why, extra=fields)
                await self._models.stop_asleep(due.model_id)

    async def _until(self, look_at: float) -> None:
        """Return when something has changed, or at `look_at`."""
        seconds = None if look_at == math.inf else max(0.0, look_at - monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _on_units(self) -> None:
        for model_id in tuple(self._keep_seconds):
            if self._models.address(model_id) is None:
                del self._keep_seconds[model_id]  # as in Ollama: an unload ends the keep-alive
        self._changed.set()

    def _on_requests(self) -> None:
        """Called whenever a request arrives, is admitted or ends."""
        if self._look_when_unused and not all(map(self._scheduler.is_in_use, self._look_when_unused)):
            self._changed.set()

"""Models that nobody uses are put to sleep, and those that have slept for long are stopped: `plan.idle`, carried out.

Nothing is done for each request: who is used is asked of the scheduler when a time may be over.
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
from mmd.plan.idle import Action, Due, IdlePlan, Usage, plan_idle

_log = logging.getLogger(__name__)


class IdleUnloader:
    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler
        self._keep_seconds: dict[str, float] = {}  # as requests want it, of models that are resident
        self._failed_at: dict[str, float] = {}  # when they could not be put to rest
        self._look_when_unused: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        models.follow(self._on_units)
        scheduler.follow(self._on_requests)

    def keep(self, model_id: str, seconds: float) -> None:
        """From the end of its last answer on the model is to stay for so long, until another request says otherwise or
        it leaves the GPU. It must be resident.
        """
        if self._keep_seconds.get(model_id) != seconds:
            self._keep_seconds[model_id] = seconds
            self._changed.set()

    @property
    def keep_seconds(self) -> Mapping[str, float]:
        """How long requests want resident models to stay after their last response."""
        return self._keep_seconds

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            try:
                ahead = await self._look()
            except MmdError as error:
                _log.warning("since when models are idle cannot be known: %s", error.message)
                await self._changed.wait()
                continue
            for rest in ahead.due:
                await self._carry_out(rest)
            if not ahead.due:
                await self._until(ahead.look_at)

    async def _look(self) -> IdlePlan:
        loaded_models = await self._models.loaded_models(wishes=self._keep_seconds)
        uses = {loaded.model_id: self._use(loaded.model_id) for loaded in loaded_models}
        ahead = plan_idle(loaded_models, uses, monotonic())
        self._look_when_unused = ahead.look_when_unused
        return ahead

    def _use(self, model_id: str) -> Usage:
        ended = max(
            self._scheduler.idle_since(model_id) or -math.inf,
            self._failed_at.get(model_id, -math.inf),
        )
        return Usage(self._scheduler.is_in_use(model_id), ended, self._keep_seconds.get(model_id))

    async def _carry_out(self, rest: Due) -> None:
        try:
            await self._scheduler.idle_out(rest.model_id, partial(self._put_to_rest, rest))
        except MmdError as error:
            # It is tried again after another idle time, as if somebody had used it.
            self._failed_at[rest.model_id] = monotonic()
            self._keep_seconds.pop(rest.model_id, None)
            _log.warning("%s stays: %s", rest.model_id, error.message, extra=about(rest.model_id))

    async def _put_to_rest(self, rest: Due) -> None:
        fields = about(rest.model_id)
        match rest.action:
            case Action.SLEEP:
                _log.info("%s is put to sleep: %s", rest.model_id, rest.why, extra=fields)
                await self._models.sleep(rest.model_id)
            case Action.STOP:
                _log.info("%s is stopped: %s", rest.model_id, rest.why, extra=fields)
                await self._models.stop_asleep(rest.model_id)

    async def _until(self, look_at: float) -> None:
        """Returns when something has changed, at that time at the latest."""
        seconds = None if look_at == math.inf else max(0.0, look_at - monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _on_units(self) -> None:
        for model_id in tuple(self._keep_seconds):
            if self._models.address(model_id) is None:
                del self._keep_seconds[model_id]  # as with Ollama: the wish was about this stay
        self._changed.set()

    def _on_requests(self) -> None:
        """Called for every request that comes or goes."""
        if self._look_when_unused and not all(map(self._scheduler.is_in_use, self._look_when_unused)):
            self._changed.set()

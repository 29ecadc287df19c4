"""Activate setups, put them to sleep and stop them, letting the responses of the models that leave finish first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from mmd.control.models.setups import Setup
from mmd.errors import PlacementChanged
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_MAX_CHANGES = 3  # how often an activation may find other models in its way than those that were drained


class SetupActions:
    """What a user can ask of a setup. The scheduler drains the models that leave; systemd loads the set at once."""

    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler

    async def activate(self, setup: Setup, *, now: bool = False) -> Mapping[str, int]:
        """Make the models of a setup resident together and open its tunnels; return when all of them answer.

        With `now`, cut the responses of the models that are unloaded; return how many, by model. Raises what activating
        a set raises; before anything is unloaded, WrongUsage if the setup exposes models without an API key.
        """
        self._models.require_exposable(setup)
        cut: dict[str, int] = {}
        for left in reversed(range(_MAX_CHANGES)):
            leavers = await self._models.would_unload(setup)
            work = partial(self._models.activate_setup, setup, leavers=leavers)
            if now:
                cut |= {one: count for one in leavers if (count := self._scheduler.in_flight(one))}
            try:
                if leavers:
                    await self._scheduler.drain_for(leavers, work, limit_seconds=0 if now else None, reason=setup.name)
                else:  # an unload of no model waits for all others
                    await work()
            except PlacementChanged:
                if not left:
                    raise
            else:
                break
        for model_id in reversed(setup.models):  # of two that generate text, the first is the active one
            self._models.asked(model_id)
        await self._models.open_tunnels(setup)
        return cut

    async def sleep(self, setup: Setup, level: int | None, *, now: bool = False) -> tuple[str, ...]:
        """Put the models of a setup to sleep, one after another, and close its tunnels. Return those that left.

        With `now`, their running responses are cut.
        """
        gone: list[str] = []
        for model_id in setup.models:
            work = partial(self._models.sleep, model_id, level)
            gone += await self._scheduler.drain_for((model_id,), work, limit_seconds=0 if now else None)
        await self._models.close_tunnels(setup)
        return tuple(gone)

    async def stop(self, setup: Setup) -> None:
        """Stop the models of a setup and close its tunnels. This does not wait for responses, like any stop."""
        for model_id in setup.models:
            await self._models.stop(model_id)
        await self._models.close_tunnels(setup)

"""Each newly loaded model is measured, a little later and by a unit of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from mmd.control.memory.measurement_scheduler import MeasurementScheduler
from mmd.errors import ManagerUnreachable
from mmd.plan.residency import Pair, UnitState
from mmd.units.bus_errors import UnitExists
from mmd.units.spec import UnitSpec
from mmd.units.watch import Pairs, Watch

UP = UnitState("active", "running", "", loaded=True)
RESIDENT = Pair(UP, UP)
ASLEEP = Pair(UP, UnitState())


class Manager:
    def __init__(self, *raises: Exception) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self._raises = list(raises)

    async def start_transient(self, unit: UnitSpec, *beside: UnitSpec) -> None:
        self.started.put_nowait(unit.name)
        if self._raises:
            raise self._raises.pop(0)


def watching(pairs: Pairs) -> Watch:
    watch = Watch(cast("Any", None))
    watch.pairs = pairs
    return watch


def tell(watch: Watch, pairs: Pairs) -> None:
    watch.pairs = pairs
    watch.notify()


@asynccontextmanager
async def learning(manager: Manager, watch: Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(MeasurementScheduler(manager, watch, calm_seconds=0).run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_each_that_comes_is_measured() -> None:
    manager, watch = Manager(), watching({"before": RESIDENT})
    async with asyncio.timeout(10), learning(manager, watch):
        tell(watch, {"before": RESIDENT, "a": ASLEEP})
        assert manager.started.empty()
        tell(watch, {"before": RESIDENT, "a": RESIDENT})
        assert await manager.started.get() == "mmd-measure.service"
        tell(watch, {"b": RESIDENT})
        await manager.started.get()


async def test_models_already_loaded_or_unloaded_are_not_measured() -> None:
    manager, watch = Manager(), watching({"a": RESIDENT, "b": RESIDENT})
    async with asyncio.timeout(10), learning(manager, watch):
        tell(watch, {"a": RESIDENT, "b": RESIDENT})
        tell(watch, {"a": RESIDENT})
        for _ in range(10):
            await asyncio.sleep(0)
        assert manager.started.empty()


async def test_one_that_is_at_work_or_cannot_be_started_ends_nothing() -> None:
    manager = Manager(
        UnitExists("org.freedesktop.systemd1.UnitExists", "it is there"),
        ManagerUnreachable("gone for a moment", hint=""),
    )
    watch = watching({})
    async with asyncio.timeout(10), learning(manager, watch):
        for name in ("a", "b", "c"):
            tell(watch, {name: RESIDENT})
            await manager.started.get()

"""Start the unit mmd-measure.service shortly after a model has loaded; it measures the memory of the loaded models.

The measurement runs in its own process: it takes a third of a second of a core, and memory that the gateway should not
hold.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from typing import Protocol

from mmd.errors import MmdError
from mmd.plan.residency import Residency, residency
from mmd.units.bus_errors import UnitExists
from mmd.units.directives import Command, Number, Seconds, Text
from mmd.units.spec import UnitSpec
from mmd.units.watch import Pairs, Watch

_UNIT = "mmd-measure.service"
# Clients wait for the first requests, which come right after a load.
_CALM_SECONDS = 10.0

_log = logging.getLogger(__name__)


class UnitStarter(Protocol):
    """The part of `Manager` that this module uses."""

    async def start_transient(self, unit: UnitSpec, *beside: UnitSpec) -> None: ...


class MeasurementScheduler:
    """Starts a measurement after a model becomes resident. After a wake it measures nothing new."""

    def __init__(self, manager: UnitStarter, watch: Watch, *, calm_seconds: float = _CALM_SECONDS) -> None:
        self._manager = manager
        self._watch = watch
        self._calm_seconds = calm_seconds
        self._resident = _resident(watch.pairs)
        self._loaded = asyncio.Event()
        watch.follow(self._on_pairs)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._loaded.wait()
            await asyncio.sleep(self._calm_seconds)
            self._loaded.clear()
            try:
                with suppress(UnitExists):  # one is running: it reads which models are resident when it begins
                    await self._manager.start_transient(_unit())
            except MmdError as error:
                _log.info("cannot measure starts: %s", error.message)

    def _on_pairs(self) -> None:
        resident = _resident(self._watch.pairs)
        if resident - self._resident:
            self._loaded.set()
        self._resident = resident


def _resident(pairs: Pairs) -> set[str]:
    return {model_id for model_id, pair in pairs.items() if residency(pair) is Residency.RESIDENT}


def _unit() -> UnitSpec:
    return UnitSpec(
        _UNIT,
        (
            Text("Description", "Measure the memory of models that were started"),
            Text("CollectMode", "inactive-or-failed"),
            Text("Type", "oneshot"),
            Command("ExecStart", (sys.executable, "-P", "-m", "mmd", "doctor", "--measure")),
            Seconds("TimeoutStartSec", 120),
            Number("Nice", 19),
            Text("SyslogIdentifier", "mmd"),
        ),
    )

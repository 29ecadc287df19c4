"""One planner of the stress: does random things with a real controller until the stress is over, or it is killed.

python -m tests.systemd.stress.planner NAME SEED FOLDER_OF_WEIGHTS
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import traceback
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from mmd.control.lifecycle.controller import Controller
from mmd.errors import DoesNotFit, EngineFailed, EngineStuck, GpuLeased, MmdError, SwapSuperseded
from mmd.units.spec import UnitSpec
from tests.systemd.stress.scene import HOOKS, LEASES_GB, MODELS, SETUPS, Done, Log
from tests.systemd.world import Sleepy

_HANG_SECONDS = 60.0
# What a planner may be told while others do their worst.
_HONEST: dict[type[MmdError], str] = {
    SwapSuperseded: "superseded",
    DoesNotFit: "does not fit",
    GpuLeased: "leased",
    EngineFailed: "failed",
    EngineStuck: "stuck",
}

Operation = tuple[str, Coroutine[object, object, str]]


class StressController(Sleepy):
    """A controller whose units run the hooks of the stress, and whose tokens may be started by hand."""

    def __init__(self) -> None:
        super().__init__({}, Path(os.environ[HOOKS]))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        start_transient = self.manager.start_transient

        async def start_open(unit: UnitSpec, *beside: UnitSpec, descriptors: Sequence[int] = ()) -> None:
            await start_transient(_open(unit), *map(_open, beside), descriptors=descriptors)

        self.manager.start_transient = start_open  # type: ignore[method-assign]
        return self


def _open(unit: UnitSpec) -> UnitSpec:
    """Return the unit without the guard that refuses starts by hand: the gate has to hold without it."""
    return replace(unit, directives=tuple(one for one in unit.directives if one.name != "RefuseManualStart"))


class Planner:
    def __init__(self, name: str, seed: int, weights: str, mmd: Controller) -> None:
        self.name = name
        self.weights = weights
        self.random = random.Random(seed)
        self.mmd = mmd

    async def run(self, log: Log) -> None:
        while not log.is_over:
            what, work = self._next()
            began = time.monotonic()
            outcome, detail = await _outcome(work)
            log.add(Done(self.name, what, outcome, round(time.monotonic() - began, 3), detail))
            await asyncio.sleep(self.random.uniform(0, 0.03))

    def _next(self) -> Operation:
        draw, model = self.random.random(), self.random.choice(MODELS)
        if draw < 0.45:
            wanted = self.random.choice("aabbccdef")
            return f"activate {wanted}", self._activate(wanted)
        if draw < 0.60:
            setup = self.random.choice(SETUPS)
            return f"activate {' '.join(setup)}", self._activate(*setup)
        if draw < 0.66:
            return f"activate {model} beside", self._activate(model, evicts=False)
        if draw < 0.78:
            size = self.random.choice(LEASES_GB)
            return f"lease of {size} GB", self._lease(size)
        if draw < 0.91:
            return f"sleep {model}", self._sleep(model)
        return f"stop {model}", self._stop(model)

    async def _activate(self, *models: str, evicts: bool = True) -> str:
        wanted: Any = models if len(models) > 1 else models[0]
        await self.mmd.activate(wanted, evicts=evicts)
        return "resident"

    async def _sleep(self, model: str) -> str:
        return "left" if await self.mmd.sleep(model) else "nothing to do"

    async def _stop(self, model: str) -> str:
        await self.mmd.stop(model)
        return "left"

    async def _lease(self, size_gb: int) -> str:
        """Have a program borrow memory for a moment; three in ten are killed in the middle."""
        milliseconds = self.random.choice((50, 120, 300))
        command = (sys.executable, "-m", "tests.systemd.stress.borrower", self.weights, str(milliseconds))
        words = ("-m", "mmd", "lease", "--vram", f"{size_gb}G", "--", *command)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.uniform(0.3, 2.0))
            if process.returncode is None:
                process.kill()
        _, output = await process.communicate()
        return {0: "held", -9: "killed"}.get(process.returncode or 0, f"refused: {output.decode()[-300:]}")


async def _outcome(work: Coroutine[object, object, str]) -> tuple[str, str]:
    try:
        async with asyncio.timeout(_HANG_SECONDS):
            return await work, ""
    except TimeoutError:
        return "hangs", ""
    except MmdError as error:
        outcome = next((word for kind, word in _HONEST.items() if isinstance(error, kind)), "error")
        return outcome, f"{type(error).__name__}: {error.message}"
    except Exception:  # noqa: BLE001 the stress reports it
        return "error", traceback.format_exc()


async def main(name: str, seed: str, weights: str) -> None:
    async with StressController() as mmd:
        await Planner(name, int(seed), weights, mmd).run(Log())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Run the stress, and look at what is left when everybody has stopped."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmd.errors import MmdError
from mmd.paths import runtime_dir
from mmd.units.bus import Manager, Unit
from tests.fakes.nvml import FakeGpus
from tests.systemd.stress.hooks import spare
from tests.systemd.stress.planner import StressController
from tests.systemd.stress.scene import HOOKS, LOG, MODELS, SETUPS, Done, Log
from tests.systemd.world import REPOSITORY, World, wait_for

_PLANNERS = 3
_KILLED_SHARE = 0.15
_STANDSTILL_SECONDS = 45.0
_END_TIMEOUT_SECONDS = 80.0
_CALM_TIMEOUT_SECONDS = 40.0
_UNITS = ("mmd-model@*", "mmd-resident@*", "mmd-lease@*", "mmd-back@*", "mmd-swap-*")


@dataclass
class Report:
    """What happened: all that must be empty is in `problems`."""

    operations: Counter[tuple[str, str]] = field(default_factory=Counter)  # by what and outcome
    planners_killed: int = 0
    allocations: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)  # over-commits
    errors: list[str] = field(default_factory=list)  # operations that hung, or failed for no reason of the stress
    calm: list[str] = field(default_factory=list)  # what does not work afterwards
    left_over: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.faults, *self.errors, *self.calm, *self.left_over]

    def __str__(self) -> str:
        lines = [f"{count:6} {what}: {outcome}" for (what, outcome), count in sorted(self.operations.items())]
        done = (
            f"{self.operations.total()} operations and {self.planners_killed} killed planners in {self.seconds:.0f} s"
        )
        return "\n".join([*lines, f"{done}; {self.allocations} allocations checked", *self.problems])


class Stress:
    """The processes of one stress. The world has the GPUs and the models of `scene.furnish`."""

    def __init__(self, world: World, gpus: FakeGpus, hooks_folder: Path, seed: int) -> None:
        self.world = world
        self.gpus = gpus
        self.seed = seed
        self.hooks = hooks_folder
        self.random = random.Random(seed)
        self.variables = {LOG: str(world.folder / "stress.log"), HOOKS: str(hooks_folder)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.generation = 0
        self.report = Report()

    def run(
        self, operations: int, *, stops_at_fault: bool = False, seconds: float = 600.0, with_hand: bool = True
    ) -> Report:
        """Run until `operations` were done, the time is over, or, with `stops_at_fault`, memory was over-committed."""
        began = time.monotonic()
        with _variables(self.variables), self._own_home():
            log = Log()
            try:
                if with_hand:
                    self.processes["hand"] = self._start("hand", str(self.seed))
                self._disturb(log, operations, began + seconds, stops_at_fault=stops_at_fault)
            finally:
                log.end()
                spare(self.hooks)
                self._end_all()
            self._read(log.read())
            self.report.seconds = time.monotonic() - began
            if not (stops_at_fault and self.world.faults()):
                asyncio.run(self._look())
        self.report.faults = self.world.faults()
        self.report.allocations = self.gpus.allocations()
        return self.report

    def _disturb(self, log: Log, operations: int, end: float, *, stops_at_fault: bool) -> None:
        for number in range(_PLANNERS):
            self._start_planner(f"planner-{number}")
        last = (0, time.monotonic())
        while (done := len(log.read())) < operations and time.monotonic() < end:
            time.sleep(self.random.uniform(0.2, 0.6))
            if done != last[0]:
                last = (done, time.monotonic())
            elif time.monotonic() - last[1] > _STANDSTILL_SECONDS:
                self.report.errors.append(f"nothing moves any more, after {done} operations")
                return
            if stops_at_fault and self.world.faults():
                return
            self._kill_a_planner()

    @contextmanager
    def _own_home(self) -> Iterator[None]:
        """Let what the manager starts, such as mmd-back@, find the mmd, models and settings of this process."""
        home = os.environ["HOME"]
        variables = {
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.environ["PATH"],
            "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", f"{home}/.config"),
            "XDG_DATA_HOME": os.environ.get("XDG_DATA_HOME", f"{home}/.local/share"),
            "XDG_STATE_HOME": os.environ.get("XDG_STATE_HOME", f"{home}/.local/state"),
        }
        self.world.manager.systemctl("set-environment", *(f"{name}={value}" for name, value in variables.items()))
        try:
            yield
        finally:
            self.world.manager.systemctl("unset-environment", *variables)

    # -- the processes

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", f"tests.systemd.stress.{module}", *words, str(self.world.weights_folder))
        return subprocess.Popen(command, cwd=REPOSITORY)

    def _start_planner(self, name: str) -> None:
        self.generation += 1
        self.processes[name] = self._start("planner", name, str(self.seed * 1000 + self.generation))

    def _kill_a_planner(self) -> None:
        planners = [name for name in self.processes if name != "hand"]
        for name in planners:
            if (status := self.processes[name].poll()) is not None:
                self.report.errors.append(f"{name} ended by itself, with status {status}")
                self._start_planner(name)
        if self.random.random() < _KILLED_SHARE:
            name = self.random.choice(planners)
            self.processes[name].kill()
            self.processes[name].wait()
            self.report.planners_killed += 1
            self._start_planner(name)

    def _end_all(self) -> None:
        for name, process in self.processes.items():
            try:
                process.wait(_END_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.report.errors.append(f"{name} hangs")
                process.kill()
                process.wait()

    def _read(self, rows: list[Done]) -> None:
        for row in rows:
            what = row.what if row.by == "hand" else row.what.split()[0]
            self.report.operations[what, row.outcome.partition(":")[0]] += 1
            if row.outcome in ("error", "hangs"):
                self.report.errors.append(f"{row.by}: {row.what} {row.outcome} after {row.seconds} s: {row.detail}")

    # -- afterwards

    async def _look(self) -> None:
        async with StressController() as mmd:
            await self._settle(mmd.manager)
            wanted: Any
            for wanted in (*MODELS, *SETUPS, "a", "f", ("b", "c")):
                try:
                    await mmd.activate(wanted)
                except MmdError as error:
                    self.report.calm.append(f"{wanted} does not come up afterwards: {error.message}")
            for unit in await _all(mmd.manager):
                await mmd.manager.stop(unit.name)
            await self._settle(mmd.manager)
            for unit in await _all(mmd.manager):
                await mmd.manager.reset_failed(unit.name)
            await asyncio.to_thread(self._wait_for_driver)
            self.report.left_over += [f"left over: {unit}" for unit in await _all(mmd.manager)]
            folders = sorted(path.name for path in runtime_dir().iterdir() if path.is_dir())
            self.report.left_over += [f"left over: the folder {name}" for name in folders]

    async def _settle(self, manager: Manager) -> None:
        """Wait until no job and no lease is left."""
        end = time.monotonic() + _CALM_TIMEOUT_SECONDS
        while busy := [unit for unit in await _all(manager) if not _is_calm(unit)]:
            if time.monotonic() > end:
                self.report.calm.append(f"never calm: {busy}")
                return
            await asyncio.sleep(0.05)

    def _wait_for_driver(self) -> None:
        try:
            wait_for(lambda: not any(self.gpus.used_mib()), what="all memory is free", seconds=5)
        except AssertionError:
            self.report.left_over.append(f"left over: {self.gpus.used_mib()} MiB of the GPUs")


async def _all(manager: Manager) -> list[Unit]:
    return [unit for unit in await manager.units(_UNITS) if unit.load_state == "loaded"]


def _is_calm(unit: Unit) -> bool:
    is_lasting = unit.name.startswith(("mmd-model@", "mmd-resident@"))
    return not unit.job and is_lasting and unit.active_state in ("active", "inactive", "failed")


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]

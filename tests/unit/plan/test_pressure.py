"""Who gives RAM back under memory pressure, and the loop that asks it of them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.control.lifecycle import memory_pressure
from mmd.control.lifecycle.memory_pressure import PressureRelief, PsiMonitor, _open_trigger, parse_stalls
from mmd.control.state.proc_memory import parse_ram
from mmd.errors import EngineFailed, MmdError
from mmd.paths import engine_socket
from mmd.plan.pressure import Ram, Sleeper, Stalls, next_to_demote, shortage
from mmd.plan.residency import Residency
from mmd.quantities import GIB

PATIENCE_SECONDS = 15.0
CPU_PRESSURE = Path("/proc/pressure/cpu")
CALM = Stalls(0.0, 0.0)
STALLED = Stalls(40.0, 20.0)
SHORT = Ram(4 * GIB, 64 * GIB)
ROOMY = Ram(40 * GIB, 64 * GIB)


@pytest.mark.parametrize(
    ("stalls", "ram", "expected"),
    [
        (CALM, ROOMY, False),
        (CALM, SHORT, False),  # full, but no process waits: RAM is there to be used
        (STALLED, SHORT, True),
        (STALLED, ROOMY, False),  # a control group against its own limit
        (Stalls(9.9, 4.9), SHORT, False),
        (Stalls(10.0, 0.0), SHORT, True),
        (Stalls(9.0, 5.0), SHORT, True),
        (STALLED, Ram(12 * GIB, 64 * GIB), True),
        (STALLED, Ram(13 * GIB, 64 * GIB), False),
        (None, ROOMY, False),
        (None, Ram(7 * GIB, 64 * GIB), False),
        (None, Ram(6 * GIB, 64 * GIB), True),
        (None, Ram(GIB - 1, 4 * GIB), True),
    ],
)
def test_when_ram_is_short(stalls: Stalls | None, ram: Ram, expected: bool) -> None:
    assert bool(shortage(stalls, ram)) is expected


def test_a_shortage_says_what_was_read() -> None:
    expected = "processes waited for memory 40 % of the last 10 s, with 4.0 GiB of RAM available"
    assert shortage(STALLED, SHORT) == expected
    assert shortage(None, SHORT) == "4.0 GiB of RAM available"


def test_oldest_sleeper_is_demoted_before_any_is_stopped() -> None:
    sleepers = [Sleeper("a", 2, 1.0), Sleeper("b", 1, 3.0), Sleeper("c", 1, 2.0), Sleeper("d", 2, 0.5)]
    order = []
    while (sleeper := next_to_demote(sleepers)) is not None:
        order.append((sleeper.id, sleeper.level))
        sleepers.remove(sleeper)
        if sleeper.level == 1:
            sleepers.append(replace(sleeper, level=2, since=10.0 + len(order)))
    assert order == [("c", 1), ("b", 1), ("d", 2), ("a", 2), ("c", 2), ("b", 2)]


def test_the_pinned_go_last() -> None:
    sleepers = [Sleeper("a", 1, 1.0, pinned=True), Sleeper("b", 2, 2.0), Sleeper("c", 1, 3.0)]
    order = []
    while (sleeper := next_to_demote(sleepers)) is not None:
        order.append(sleeper.id)
        sleepers.remove(sleeper)
    assert order == ["c", "b", "a"]


@given(st.floats(0, 9.99), st.floats(0, 4.99), st.integers(0, 2**40), st.integers(1, 2**40))
def test_no_demotion_without_pressure(some: float, full: float, available: int, total: int) -> None:
    assert not shortage(Stalls(some, full), Ram(available, total))


@given(st.lists(st.builds(Sleeper, st.text(), st.sampled_from([1, 2]), st.floats(0, 1e10)), min_size=1))
def test_the_one_that_goes_is_the_oldest_of_its_level(sleepers: list[Sleeper]) -> None:
    chosen = next_to_demote(sleepers)
    assert chosen is not None
    assert all(chosen.since <= other.since for other in sleepers if other.level == chosen.level)
    assert chosen.level == min(other.level for other in sleepers)


# -- the loop


@dataclass
class Readings:
    """A PressureSource that a test turns: each step is one look at the machine."""

    now: Stalls | None = field(default_factory=lambda: STALLED)
    memory: Ram = SHORT
    steps: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def wait(self) -> None:
        self.steps.task_done()
        await self.steps.get()

    def stalls(self) -> Stalls | None:
        return self.now

    def ram(self) -> Ram:
        return self.memory

    async def look(self) -> None:
        """Returns when the loop has looked, and done what it does then."""
        self.steps.put_nowait(None)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.steps.join()


@dataclass
class Machine:
    where: dict[str, Residency]
    demoted: list[str] = field(default_factory=list)
    error: MmdError | None = None
    gone: bool = False
    pins: frozenset[str] = frozenset()

    def pinned(self) -> frozenset[str]:
        return self.pins

    async def residencies(self) -> Mapping[str, Residency]:
        return self.where

    async def demote(self, model_id: str) -> str | None:
        self.demoted.append(model_id)
        if self.error is not None:
            raise self.error
        if self.gone:
            return None
        self.where[model_id] = Residency.ABSENT
        return "stopped"


@dataclass
class Running:
    machine: Machine
    readings: Readings
    relief: PressureRelief
    task: asyncio.Task[None]

    async def settle(self) -> None:
        self.relief.settled_at = 0.0
        await self.readings.look()


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Running]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name, since in {"young": 300, "old": 100, "resident": 1}.items():
        folder = engine_socket(name).parent
        folder.mkdir(parents=True)
        (folder / "asleep").write_text(f'{{"level": 1, "since": {since}, "freed_bytes": null}}\n')
    machine = Machine(
        {
            "young": Residency.ASLEEP,
            "old": Residency.ASLEEP,
            "resident": Residency.RESIDENT,
            "just-woken": Residency.ASLEEP,  # without a record of its sleep
        }
    )
    readings = Readings()
    readings.steps.put_nowait(None)
    readings.steps.get_nowait()
    relief = PressureRelief(machine, readings)
    task = asyncio.create_task(relief.run())
    yield Running(machine, readings, relief, task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_at_a_time_and_then_it_waits_for_the_effect(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmd")
    await running.readings.look()
    await running.readings.look()
    assert running.machine.demoted == ["old"]
    assert caplog.messages == [
        "old, asleep at level 1, is now stopped: "
        "processes waited for memory 40 % of the last 10 s, with 4.0 GiB of RAM available"
    ]
    assert caplog.records[0].__dict__["MMD_MODEL"] == "old"
    await running.settle()
    await running.settle()
    await running.settle()
    assert running.machine.demoted == ["old", "young"]  # no other model sleeps, and the pressure continues


async def test_no_demotion_after_the_pressure(running: Running) -> None:
    running.readings.now = CALM
    await running.readings.look()
    assert running.machine.demoted == []


async def test_demotion_that_fails_is_told_and_not_repeated_at_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.machine.error = EngineFailed("the bus said no", hint="mmd status")
    await running.readings.look()
    await running.readings.look()
    assert running.machine.demoted == ["old"]
    assert caplog.messages[0].startswith("old keeps its RAM although processes waited")
    assert not running.task.done()


async def test_stopped_sleeper_does_not_block_others(running: Running) -> None:
    running.machine.gone = True
    await running.readings.look()
    running.machine.gone, running.machine.where["old"] = False, Residency.RESIDENT
    await running.readings.look()
    assert running.machine.demoted == ["old", "young"]


# -- the kernel


def test_proc_files_are_read() -> None:
    text = "some avg10=1.53 avg60=0.87 avg300=0.25 total=1570976718\nfull avg10=0.44 avg60=0.00 avg300=0.00 total=12\n"
    assert parse_stalls(text) == Stalls(1.53, 0.44)
    assert parse_ram("MemTotal:       1024 kB\nMemFree:  1 kB\nMemAvailable:    512 kB\n") == Ram(512 << 10, 1 << 20)


async def test_this_machine_is_read() -> None:
    with PsiMonitor() as kernel:
        ram = kernel.ram()
        assert 0 < ram.available_bytes <= ram.total_bytes
        stalls = kernel.stalls()
        if memory_pressure.PRESSURE.exists():
            assert stalls is not None
            assert 0 <= stalls.full_percent <= stalls.some_percent <= 100


async def test_kernel_without_pressure_is_told_once_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmd")
    monkeypatch.setattr(memory_pressure, "_POLL_SECONDS", 0.0)
    with PsiMonitor(tmp_path / "memory") as kernel:
        assert kernel.stalls() is None
        await kernel.wait()
        await kernel.wait()
    assert len(caplog.messages) == 1


def test_kernel_without_triggers_is_not_an_error() -> None:
    """For others than root opening it fails already, as /proc/pressure did before Linux 6.5."""
    assert _open_trigger(Path("/proc/version")) is None


@pytest.fixture
def busy_processor() -> Iterator[None]:
    """Two processes want the same one."""
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}})\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) for _ in range(2)]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.skipif(not CPU_PRESSURE.exists(), reason="this kernel tells no pressure")
async def test_the_kernel_wakes_us_up(busy_processor: None) -> None:
    """On pressure for the processor, which is more easily made than for memory."""
    with PsiMonitor(CPU_PRESSURE) as kernel:
        if not kernel.has_trigger:
            pytest.skip("this kernel lets only root ask for triggers")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await kernel.wait()
            await kernel.wait()  # and again, for as long as it lasts

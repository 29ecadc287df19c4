"""Demote sleeping models while the machine is short of RAM.

This watches the pressure of the machine, not of the user's control group: all programs lack the RAM that sleepers use,
while the sleepers themselves never stall for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
from collections.abc import Collection, Mapping
from pathlib import Path
from time import monotonic
from typing import Protocol, Self

from mmd.control.state.proc_memory import MEMORY, parse_ram
from mmd.control.state.sleep_record import asleep_level, asleep_since
from mmd.errors import MmdError
from mmd.journal import about
from mmd.plan.pressure import SETTLE_SECONDS, SOME_PERCENT, Ram, Sleeper, Stalls, next_to_demote, shortage
from mmd.plan.residency import Residency

_log = logging.getLogger(__name__)

PRESSURE = Path("/proc/pressure/memory")
_POLL_SECONDS = 5.0
# Unprivileged processes get windows of whole multiples of 2 s, from Linux 6.5 on.
_WINDOW_MICROSECONDS = 2_000_000


class Demotable(Protocol):
    """What `PressureRelief` needs of `Controller`."""

    def pinned(self) -> Collection[str]: ...

    async def residencies(self) -> Mapping[str, Residency]: ...

    async def demote(self, model_id: str) -> str | None: ...


class PressureSource(Protocol):
    """Reads the memory pressure and the RAM of the machine."""

    async def wait(self) -> None:
        """Return when there may be pressure."""
        ...

    def stalls(self) -> Stalls | None: ...

    def ram(self) -> Ram: ...


class PsiMonitor:
    """A PressureSource that reads the kernel's PSI: with a trigger, which wakes it under pressure, or if the kernel
    grants none, by polling every few seconds. It owns the trigger's descriptors: use it as a context manager.
    """

    def __init__(self, pressure: Path = PRESSURE) -> None:
        self._pressure = pressure
        self._trigger = _open_trigger(pressure)
        # asyncio waits for readable descriptors only. A trigger is never readable; an epoll that watches it is.
        self._epoll = select.epoll()
        self._triggered = asyncio.Event()

    def __enter__(self) -> Self:
        if self._trigger is not None:
            self._epoll.register(self._trigger, select.EPOLLPRI)
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_trigger)
        if self.stalls() is None:
            _log.info("this kernel reports no memory pressure; sleeping models are demoted by available RAM only")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._trigger is not None:
            os.close(self._trigger)

    @property
    def has_trigger(self) -> bool:
        """True if the kernel reports pressure by itself; it may allow that to root only."""
        return self._trigger is not None

    async def wait(self) -> None:
        if self._trigger is None:
            await asyncio.sleep(_POLL_SECONDS)
            return
        self._triggered.clear()
        await self._triggered.wait()

    def _on_trigger(self) -> None:
        self._epoll.poll(0)  # consume the event, or epoll reports it again
        self._triggered.set()

    def stalls(self) -> Stalls | None:
        try:
            return parse_stalls(self._pressure.read_text("ascii"))
        except OSError:  # not built in, or disabled at boot
            return None

    def ram(self) -> Ram:
        return parse_ram(MEMORY.read_text("ascii"))


class PressureRelief:
    """Demotes one sleeper at a time, and waits for its effect before the next."""

    def __init__(self, models: Demotable, source: PressureSource) -> None:
        self._models = models
        self._source = source
        self.settled_at = 0.0  # monotonic; before this time readings do not show the last demotion yet

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._source.wait()
            if monotonic() >= self.settled_at and (why := shortage(self._source.stalls(), self._source.ram())):
                await self._demote_one(why)

    async def _demote_one(self, why: str) -> None:
        sleeper = next_to_demote(await self._sleepers())
        if sleeper is None:
            return
        fields = about(sleeper.id)
        try:
            became = await self._models.demote(sleeper.id)
        except MmdError as error:
            _log.warning("%s keeps its RAM although %s: %s", sleeper.id, why, error.message, extra=fields)
        else:
            if became is None:
                return  # woken or ended meanwhile: the next reading decides
            _log.info("%s, asleep at level %d, is now %s: %s", sleeper.id, sleeper.level, became, why, extra=fields)
        self.settled_at = monotonic() + SETTLE_SECONDS

    async def _sleepers(self) -> list[Sleeper]:
        asleep = [name for name, here in (await self._models.residencies()).items() if here is Residency.ASLEEP]
        pinned = self._models.pinned()
        return [
            Sleeper(name, asleep_level(name), since, name in pinned)
            for name in asleep
            if (since := asleep_since(name)) is not None
        ]


def parse_stalls(text: str) -> Stalls:
    """Parse /proc/pressure/memory: `some avg10=0.12 avg60=…` and `full avg10=…`."""
    found = dict(re.findall(r"^(some|full) avg10=([\d.]+)", text, re.MULTILINE))
    return Stalls(float(found["some"]), float(found["full"]))


def _open_trigger(pressure: Path) -> int | None:
    """Return a descriptor that the kernel marks when stalls exceed the limit; None if it grants no trigger."""
    try:
        descriptor = os.open(pressure, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None  # no such file, or a kernel that grants triggers to root only
    stall_microseconds = int(_WINDOW_MICROSECONDS * SOME_PERCENT / 100)
    try:
        os.write(descriptor, f"some {stall_microseconds} {_WINDOW_MICROSECONDS}\0".encode())
    except OSError:
        os.close(descriptor)
        return None
    return descriptor

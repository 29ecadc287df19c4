"""Choose the sleeping model to demote under memory pressure: one at a time, never a resident model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmd.quantities import GIB, size_text

# The kernel averages over 10 s. After three times that, 5 % of a total stall remain, which is below both limits: a
# reading then shows the effect of the last demotion and not what came before it.
SETTLE_SECONDS = 30.0
# systemd asks services to free memory when they wait a tenth of the time (MemoryPressureWatch=); a desktop then
# stutters noticeably. If no process at all can run, half of that time is as bad.
SOME_PERCENT = 10.0
FULL_PERCENT = 5.0


@dataclass(frozen=True, slots=True)
class Stalls:
    """Percentage of the last 10 s in which some process, or all processes at once, waited for memory."""

    some_percent: float
    full_percent: float


@dataclass(frozen=True, slots=True)
class Ram:
    """RAM of the machine."""

    available_bytes: int
    total_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """Return the RAM that models leave to the rest of the system."""
        return max(GIB, self.total_bytes // 10)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A sleeping model."""

    id: str
    level: int
    since: float  # wall clock, in seconds
    pinned: bool = False


def shortage(stalls: Stalls | None, ram: Ram) -> str:
    """Return why sleeping models must release RAM; "" if they need not.

    `stalls` is None if the kernel does not report them; then only the available RAM counts. Stalls with much available
    RAM come from the limit of a control group, which sleeping models do not affect.
    """
    available = f"{size_text(ram.available_bytes)} of RAM available"
    if stalls is None:
        return available if ram.available_bytes < ram.reserve_bytes else ""
    if ram.available_bytes >= 2 * ram.reserve_bytes:
        return ""
    if stalls.some_percent < SOME_PERCENT and stalls.full_percent < FULL_PERCENT:
        return ""
    return f"processes waited for memory {stalls.some_percent:.0f} % of the last 10 s, with {available}"


def next_to_demote(sleepers: Iterable[Sleeper]) -> Sleeper | None:
    """Return the model that has slept longest, of those with weights in RAM; if there are none, of the others.

    Pinned models are demoted last, but are demoted: otherwise the kernel kills the process with the most RAM.
    """
    return min(
        sleepers, key=lambda sleeper: (sleeper.pinned, sleeper.level > 1, sleeper.since, sleeper.id), default=None
    )

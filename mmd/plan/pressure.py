"""Who gives RAM back when the machine runs short of it: sleepers, one after another, and never who is resident."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmd.quantities import GIB, size_text

# The kernel averages over 10 s: after three times that, what remains of total standstill (5 %) is below both bounds,
# so a reading says what the last demotion has brought, and not what was before it.
SETTLE_SECONDS = 30.0
# At a tenth of the time systemd, too, tells services to give memory back (its MemoryPressureWatch=); a user notices a
# desktop that stutters so. Where *nothing* runs meanwhile, half of that is as bad.
SOME_PERCENT = 10.0
FULL_PERCENT = 5.0


@dataclass(frozen=True, slots=True)
class Stalls:
    """How much of the last 10 s was lost to waiting for memory: for some process, and for all of them at once."""

    some_percent: float
    full_percent: float


@dataclass(frozen=True, slots=True)
class Ram:
    available_bytes: int
    total_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What models leave to the rest of the system."""
        return max(GIB, self.total_bytes // 10)


@dataclass(frozen=True, slots=True)
class Sleeper:
    id: str
    level: int
    since: float  # wall clock, in seconds
    pinned: bool = False


def shortage(stalls: Stalls | None, ram: Ram) -> str:
    """Why sleepers have to give up RAM, or "". `stalls` is None where the kernel does not tell; then what is available
    must be short by itself.

    Stalls with much RAM available come from the limit of some control group: what sleepers keep is not in its way.
    """
    available = f"{size_text(ram.available_bytes)} of RAM are available"
    if stalls is None:
        return available if ram.available_bytes < ram.reserve_bytes else ""
    if ram.available_bytes >= 2 * ram.reserve_bytes:
        return ""
    if stalls.some_percent < SOME_PERCENT and stalls.full_percent < FULL_PERCENT:
        return ""
    return f"memory held something up for {stalls.some_percent:.0f} % of the last 10 s, and {available}"


def next_to_demote(sleepers: Iterable[Sleeper]) -> Sleeper | None:
    """The one that has slept longest; before any of them is stopped, all give up the weights that they keep in RAM.

    Who is pinned goes last, and goes: where nobody gives RAM back, the kernel kills who has most of it.
    """
    return min(
        sleepers, key=lambda sleeper: (sleeper.pinned, sleeper.level > 1, sleeper.since, sleeper.id), default=None
    )

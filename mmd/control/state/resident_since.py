"""Since when a model has been resident, by systemd's timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mmd.units.bus_errors import NoSuchUnit
from mmd.units.names import engine_unit, token_unit

if TYPE_CHECKING:
    from mmd.units.bus import Manager


async def resident_since_us(
    manager: Manager, model_id: str, stamp: Literal["ActiveEnterTimestamp", "ActiveEnterTimestampMonotonic"]
) -> int | None:
    """Return when its engine became ready or, after a wake, its token active; None if it has just ended.

    The time is in microseconds, on the clock of `stamp`.
    """
    try:
        units = [await manager.unit(unit) for unit in (engine_unit(model_id), token_unit(model_id))]
    except NoSuchUnit:
        return None
    return max(int(unit[stamp]) for unit in units)

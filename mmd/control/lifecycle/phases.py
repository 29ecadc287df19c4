"""Phases of a swap in seconds, from systemd's timestamps and the records of the hooks."""

from __future__ import annotations

import json
import time
from typing import Any

from mmd.paths import runtime_dir
from mmd.units.bus import Manager
from mmd.units.names import engine_unit, token_unit

_MICROSECONDS = 1_000_000


def monotonic() -> float:
    """Return seconds on the clock of systemd's timestamps and of the hooks."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def read_phases(
    manager: Manager, model_id: str, *, evicted: str | None, submitted: float, woke: bool
) -> dict[str, float]:
    """Return the seconds of each phase of a swap that has just ended; `submitted` is on the clock of `monotonic`."""
    token = await manager.unit(token_unit(model_id))
    phases: dict[str, float] = {}
    if evicted is not None:
        # The new token starts when the old token has stopped.
        phases["release"] = max(0.0, _seconds(token, "InactiveExit") - submitted)
        phases |= hook_phases(evicted, "release", since=submitted, names={"vram_seconds": "vram_free"})
    if woke:
        phases["wake"] = _seconds(token, "ActiveEnter") - _seconds(token, "InactiveExit")
        phases |= hook_phases(model_id, "wake", since=submitted, names={"canary_seconds": "canary"})
    else:
        engine = await manager.unit(engine_unit(model_id))
        phases["load"] = _seconds(engine, "ActiveEnter") - _seconds(engine, "InactiveExit")
    return {name: round(seconds, 4) for name, seconds in phases.items()}


def _seconds(unit: dict[str, Any], name: str) -> float:
    return int(unit[f"{name}TimestampMonotonic"]) / _MICROSECONDS


def hook_phases(model_id: str, hook: str, *, since: float, names: dict[str, str]) -> dict[str, float]:
    """Return the seconds that a hook recorded in this swap, by phase; {} if the record is missing or older.

    `names` maps the keys of the record to phases.
    """
    try:
        record = json.loads((runtime_dir() / f"{model_id}~{hook}").read_bytes())
    except FileNotFoundError:
        return {}
    if record["began"] < since:
        return {}
    return {phase: record[key] for key, phase in names.items() if record.get(key) is not None}

"""Phases of a swap in seconds, from systemd's timestamps and the records of the hooks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from mmd.paths import runtime_dir
from mmd.units.bus import Manager
from mmd.units.names import engine_unit, token_unit

_MICROSECONDS = 1_000_000


def monotonic() -> float:
    """Return seconds on the clock of systemd's timestamps and of the hooks."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def read_phases(
    manager: Manager, model_id: str, *, evicted: Iterable[str], submitted: float, woke: bool
) -> dict[str, float]:
    """Return the seconds of each phase of a swap that has just ended; `submitted` is on the clock of `monotonic`."""
    phases: dict[str, float] = {}
    # The gate waits for the models that leave while its own process starts, so their release ends when it admits.
    gate = _hook_record(model_id, "gate", since=submitted)
    admitted = gate["began"] + gate["wait_seconds"] if gate else submitted
    leavers = tuple(evicted)
    if leavers:
        phases["release"] = admitted - submitted
        freed = [hook_phases(one, "release", since=submitted, names={"vram_seconds": "vram_free"}) for one in leavers]
        if vram_free := [one["vram_free"] for one in freed if "vram_free" in one]:
            phases["vram_free"] = max(vram_free)
    if woke:
        token = await manager.unit(token_unit(model_id))
        phases["wake"] = max(0.0, _seconds(token, "ActiveEnter") - admitted)
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
    record = _hook_record(model_id, hook, since=since)
    return {phase: record[key] for key, phase in names.items() if record.get(key) is not None}


def _hook_record(model_id: str, hook: str, *, since: float) -> dict[str, Any]:
    """Return what a hook recorded in this swap; {} if the record is missing or older."""
    try:
        record: dict[str, Any] = json.loads((runtime_dir() / f"{model_id}~{hook}").read_bytes())
    except FileNotFoundError:
        return {}
    return record if record["began"] >= since else {}

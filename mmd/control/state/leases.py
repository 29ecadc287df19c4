"""What the API and `--json` show of leases: memory that is kept for other programs than models."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mmd.control.state.devices import Bytes, held_bytes
from mmd.errors import NoSuchLease
from mmd.paths import runtime_dir
from mmd.plan.lease import LeasePair, LeaseState, lease_id
from mmd.units.bus import Manager, NoSuchUnit
from mmd.units.names import holder_unit, token_unit
from mmd.units.watch import Leases, leases_of

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease. `devices`: the bytes of each device that it keeps for its program, which may use less."""

    name: str
    state: LeaseState
    program: str  # as the unit of its holder describes it
    devices: Bytes
    since: str | None  # when it was let in: ISO 8601, UTC; null before
    pid: int | None  # it ends with this process; null if it lasts until it is ended


async def read_leases(manager: Manager) -> tuple[LeaseStatus, ...]:
    """Return the leases by name."""
    return await lease_statuses(manager, leases_of(await manager.units()))


async def lease_statuses(manager: Manager, leases: Leases) -> tuple[LeaseStatus, ...]:
    """Return the leases by name, with what only their units' properties say."""
    return tuple(await asyncio.gather(*(_status(manager, name, pair) for name, pair in sorted(leases.items()))))


async def read_lease(manager: Manager, name: str) -> LeaseStatus:
    """Return one lease. Raises NoSuchLease."""
    for lease in await read_leases(manager):
        if lease.name == name:
            return lease
    raise NoSuchLease(f"there is no lease {name}", hint="mmd status   # shows the leases")


def is_held(name: str) -> bool:
    """Return whether the ledger has the lease: the gate of its token has let it in."""
    return (runtime_dir() / f"{lease_id(name)}~gpu" / "held").exists()


async def _status(manager: Manager, name: str, pair: LeasePair) -> LeaseStatus:
    entered_us, words = 0, tuple[str, ...]()
    with suppress(NoSuchUnit):  # it has just ended
        if pair.state is not LeaseState.STARTING:
            entered_us = int((await manager.unit(token_unit(lease_id(name))))["ActiveEnterTimestamp"])
        words = next(iter(await manager.commands(holder_unit(name), "ExecStart")), ())
    return LeaseStatus(
        name=name,
        state=pair.state,
        program=pair.description,
        devices=held_bytes(pair.uses or {}),
        since=_utc(entered_us) if entered_us else None,
        pid=next((int(word.removeprefix("pid=")) for word in words if word.startswith("pid=")), None),
    )


def _utc(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / _MICROSECONDS, UTC).isoformat(timespec="milliseconds")

"""What the API and `--json` show of leases: memory that is kept for other programs than models."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mmd.control.state.devices import Bytes, held_bytes
from mmd.errors import NoSuchLease
from mmd.paths import TOKEN_SUFFIX, runtime_dir
from mmd.plan.lease import LeasePair, LeaseState, lease_id
from mmd.units.bus import Manager
from mmd.units.bus_errors import NoSuchUnit
from mmd.units.names import holder_unit, token_unit
from mmd.units.watch import Leases, leases_of

_MICROSECONDS = 1_000_000
_PREFIX = lease_id("")


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease. `devices`: the bytes of each device that it keeps for its program, which may use less."""

    name: str
    state: LeaseState
    program: str  # as the unit of its holder describes it
    devices: Bytes
    since: str | None  # when it was let in: ISO 8601, UTC; null before
    pid: int | None  # it ends with this process; null if it lasts until it is ended


async def current_leases() -> tuple[LeaseStatus, ...]:
    """As `read_leases`, over a new connection. Raises ManagerUnreachable."""
    async with await Manager.connect() as manager:
        return await read_leases(manager)


async def read_leases(manager: Manager) -> tuple[LeaseStatus, ...]:
    """Return the leases by name."""
    return await lease_statuses(manager, leases_of(await manager.units()))


async def lease_statuses(manager: Manager, leases: Leases) -> tuple[LeaseStatus, ...]:
    """Return the leases that are not over by name, with what only their units' properties say."""
    there = sorted((name, pair) for name, pair in leases.items() if not pair.is_over)
    return tuple(await asyncio.gather(*(_status(manager, name, pair) for name, pair in there)))


async def read_lease(manager: Manager, name: str) -> LeaseStatus:
    """Return one lease. Raises NoSuchLease."""
    for lease in await read_leases(manager):
        if lease.name == name:
            return lease
    raise NoSuchLease(f"there is no lease {name}", hint="mmd lease list")


async def lease_pids(manager: Manager, leases: Leases) -> frozenset[int]:
    """Return the processes that leases are for; programs start more of them, see `with_children`."""
    found = await asyncio.gather(*(_pid(manager, name) for name in leases))
    return frozenset(pid for pid in found if pid is not None)


def with_children(pids: Collection[int]) -> frozenset[int]:
    """Return processes and all that they have started. Blocks for some milliseconds if there are any."""
    if not pids:
        return frozenset()
    import psutil

    found = set(pids)
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return frozenset(found)


def held_names() -> list[str]:
    """Return the names of the leases that the ledger has: the gates of their tokens have let them in."""
    return sorted(folder.name.removeprefix(_PREFIX).removesuffix(TOKEN_SUFFIX) for folder in _held())


def is_held(name: str) -> bool:
    return name in held_names()


def _held() -> list[Path]:
    return [entry.parent for entry in runtime_dir().glob(f"{_PREFIX}*{TOKEN_SUFFIX}/held")]


async def _status(manager: Manager, name: str, pair: LeasePair) -> LeaseStatus:
    entered_us = 0
    if pair.state is not LeaseState.STARTING:
        with suppress(NoSuchUnit):  # it has just ended
            entered_us = int((await manager.unit(token_unit(lease_id(name))))["ActiveEnterTimestamp"])
    return LeaseStatus(
        name=name,
        state=pair.state,
        program=pair.description,
        devices=held_bytes(pair.uses or {}),
        since=_utc(entered_us) if entered_us else None,
        pid=await _pid(manager, name),
    )


async def _pid(manager: Manager, name: str) -> int | None:
    """Return the process of a lease: an argument of its holder."""
    try:
        words = next(iter(await manager.commands(holder_unit(name), "ExecStart")), ())
    except NoSuchUnit:
        return None
    return next((int(word.removeprefix("pid=")) for word in words if word.startswith("pid=")), None)


def _utc(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / _MICROSECONDS, UTC).isoformat(timespec="milliseconds")

"""Units that systemd starts again and again. They are never `failed`: mmd's have no limit to that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, failed
from mmd.units.bus import Manager, Unit
from mmd.units.names import tunnel_of, tunnel_unit
from mmd.units.unit_files import GATEWAY

_SETTLED = ("active", "inactive", "failed")


@dataclass(frozen=True, slots=True)
class RestartLoop:
    unit: str
    result: str  # why it ended the last time, as in a service's `Result`
    times: int


async def read_restart_loops(manager: Manager, units: Iterable[Unit]) -> tuple[RestartLoop, ...]:
    """Of the gateway and the tunnels those that ended otherwise than they should, and are to start anew."""
    moving = [unit.name for unit in units if _is_restarted(unit.name) and unit.active_state not in _SETTLED]
    services = {name: await manager.service(name) for name in moving}
    found = (RestartLoop(name, service["Result"], service["NRestarts"]) for name, service in services.items())
    # A start has the result forgotten; a second one without the unit being up in between is no recovery.
    return tuple(one for one in found if one.result != "success" or one.times > 1)


def _is_restarted(unit: str) -> bool:
    return unit in (GATEWAY, tunnel_unit(tunnel_of(unit)))


def check_restart_loop(restarting: Iterable[RestartLoop]) -> Iterator[Diagnosis]:
    for one in restarting:
        if one.unit == GATEWAY:
            yield failed(f"the gateway does not start: {outcome(one)}", f"journalctl --user -u {GATEWAY} -n 20")


def outcome(one: RestartLoop) -> str:
    again = f"{one.times} restart{'s' if one.times != 1 else ''}"
    return f"{one.result}, {again}" if one.result != "success" else again

"""Find units that systemd restarts over and over. They never reach `failed`: mmd sets no start limit for them."""

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
    """A unit that systemd keeps restarting."""

    unit: str
    result: str  # the service's `Result` of the last run
    times: int  # automatic restarts


async def read_restart_loops(manager: Manager, units: Iterable[Unit]) -> tuple[RestartLoop, ...]:
    """Return the gateway and tunnel units that failed and wait for a restart."""
    moving = [unit.name for unit in units if _is_restarted(unit.name) and unit.active_state not in _SETTLED]
    services = {name: await manager.service(name) for name in moving}
    found = (RestartLoop(name, service["Result"], service["NRestarts"]) for name, service in services.items())
    # A start clears `Result`; more than one restart without reaching active is still a loop.
    return tuple(one for one in found if one.result != "success" or one.times > 1)


def _is_restarted(unit: str) -> bool:
    return unit in (GATEWAY, tunnel_unit(tunnel_of(unit)))


def check_restart_loop(restarting: Iterable[RestartLoop]) -> Iterator[Diagnosis]:
    for one in restarting:
        if one.unit == GATEWAY:
            yield failed(
                f"the gateway does not start: {describe_restarts(one)}", f"journalctl --user -u {GATEWAY} -n 20"
            )


def describe_restarts(one: RestartLoop) -> str:
    restarts = f"{one.times} restart{'s' if one.times != 1 else ''}"
    return f"{one.result}, {restarts}" if one.result != "success" else restarts

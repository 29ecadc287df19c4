"""What the API and `--json` show of leases: memory that is kept for other programs than models."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.control.state.devices import Bytes, held_bytes
from mmd.plan.lease import LeaseState
from mmd.units.watch import Leases


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease. `devices`: the bytes of each device that it keeps for its program, which may use less."""

    name: str
    state: LeaseState
    program: str  # as the unit of its holder describes it
    devices: Bytes


def lease_statuses(leases: Leases) -> tuple[LeaseStatus, ...]:
    """Return the leases by name."""
    return tuple(
        LeaseStatus(name, pair.state, pair.description, held_bytes(pair.uses or {}))
        for name, pair in sorted(leases.items())
    )

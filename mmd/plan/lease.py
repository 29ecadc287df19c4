"""Leases: memory of a device that is kept for another program than a model.

A lease has a token like a model, and a holder where a model has its engine: a process that runs for as long as the
lease is held. Nothing evicts a lease; it ends with its holder.

token                      holder        the lease is
activating, job start      any           starting (its token waits for models that are being unloaded)
active                     active        held
active                     activating    starting
any other                  any           ending
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from mmd.plan.residency import UnitState
from mmd.plan.share import Share

_ID = "lease@"
_MAX_NAME_CHARACTERS = 32
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{_MAX_NAME_CHARACTERS - 1}}}")


class LeaseState(StrEnum):
    STARTING = "starting"
    HELD = "held"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class LeasePair:
    """The holder and the token of one lease."""

    holder: UnitState
    token: UnitState
    uses: Share | None = None  # None if the token's unit is not loaded
    description: str = ""  # of the holder's unit: the program that has the lease

    @property
    def state(self) -> LeaseState:
        if self.token.job == "stop" or self.holder.job == "stop":
            return LeaseState.ENDING
        if self.token.active == "activating" or self.token.job == "start":
            return LeaseState.STARTING
        if self.token.active != "active":
            return LeaseState.ENDING
        is_up = self.holder.active == "active"
        return LeaseState.HELD if is_up else LeaseState.STARTING if _comes_up(self.holder) else LeaseState.ENDING

    @property
    def is_over(self) -> bool:
        """True if it holds no memory: systemd keeps its units until `mmd-back@NAME` has ended."""
        units = (self.token, self.holder)
        return all(not unit.job and unit.active in ("inactive", "failed") for unit in units)


def _comes_up(holder: UnitState) -> bool:
    return holder.active == "activating" or holder.job == "start"


def lease_id(name: str) -> str:
    """Return the id of a lease among the ids of models, in placements, tokens and the ledger.

    It contains "@", which no model's id does.
    """
    return _ID + name


def lease_name(model_id: str) -> str | None:
    """Return the name of a lease: the inverse of `lease_id`; None for a model."""
    return model_id.removeprefix(_ID) if model_id.startswith(_ID) else None


def is_valid_name(name: str) -> bool:
    """True for lower-case letters, digits and . _ -, as in models' ids."""
    return _NAME.fullmatch(name) is not None


def new_name(command: str, taken: Collection[str]) -> str:
    """Return a free name, made from a program's name; with a number if that is taken."""
    base = re.sub(r"[^a-z0-9._-]+", "-", command.rpartition("/")[2].lower()).strip("._-") or "lease"
    base = base[: _MAX_NAME_CHARACTERS - len("-999")]
    numbered = (f"{base}-{number}" for number in range(2, len(taken) + 3))
    return base if base not in taken else next(name for name in numbered if name not in taken)

"""Leases: memory of a device that is kept for another program than a model.

A lease has a token like a model, and a holder where a model has its engine: a process that runs for as long as the
lease is held. Nothing evicts a lease; it ends with its holder.

token                      holder        the lease is
activating, job start      any           starting (its token waits for those who leave)
active                     active        held
active                     activating    starting
any other                  any           ending
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmd.plan.place import CannotPlace, Device, Occupant, Placement, Shape, Wanted, place
from mmd.plan.residency import UnitState
from mmd.plan.share import RAM, Share, share_text
from mmd.quantities import MIB, size_text

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
        """True if it holds nothing any more: systemd keeps its units until `mmd-back@` has ended."""
        units = (self.token, self.holder)
        return all(not unit.job and unit.active in ("inactive", "failed") for unit in units)


def _comes_up(holder: UnitState) -> bool:
    return holder.active == "activating" or holder.job == "start"


def lease_id(name: str) -> str:
    """Return what stands for a lease among the ids of models, in placements, tokens and the ledger.

    No model's id contains "@".
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


def lease_occupants(leases: Mapping[str, LeasePair]) -> tuple[Occupant, ...]:
    """Return the leases that hold memory or are about to. One that ends counts until its token is down: in the gate."""
    return tuple(
        Occupant(lease_id(name), uses=pair.uses or {}, is_lease=True)
        for name, pair in sorted(leases.items())
        if pair.state is not LeaseState.ENDING
    )


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a program asks for: `size_mib` of one device, or all of it."""

    name: str
    size_mib: int | None = None  # None: all of one device that models can have
    device: str | None = None  # None: any GPU; the RAM on a machine without one


def place_lease(
    request: LeaseRequest, occupants: Sequence[Occupant], devices: Sequence[Device], *, by_user: bool = False
) -> Placement | CannotPlace:
    """Place a lease; `by_user` unloads pinned models, too.

    A whole device is the one for which the least important models leave, and of those the largest.
    """
    among = [device for device in devices if _may_hold(request, device, devices)]
    if request.size_mib is not None or not among:
        return _place_on(request, request.size_mib or 0, occupants, among, by_user=by_user)
    tried = [
        (_place_on(request, device.capacity_mib, occupants, [device], by_user=by_user), device) for device in among
    ]
    found = [(one, device) for one, device in tried if isinstance(one, Placement)]
    if not found:
        return min((one for one, _ in tried if isinstance(one, CannotPlace)), key=lambda one: one.short_mib)
    return min(found, key=lambda pair: _cost(pair[0], pair[1], occupants))[0]


def place_on_all_gpus(
    name: str, occupants: Sequence[Occupant], devices: Sequence[Device], *, by_user: bool = False
) -> Placement | None:
    """Return the placement of a lease on all that models can leave of every GPU; None if that is nothing.

    Sleeping models keep what they keep asleep.
    """
    gpus = [device for device in devices if device.id != RAM]
    on_gpus = {device.id for device in gpus}
    left = {device.id: device.capacity_mib for device in gpus}
    leavers = [one for one in occupants if on_gpus & one.uses.keys() and not _stays(one, by_user=by_user)]
    for one in occupants:
        taken = one.uses if one not in leavers and not one.is_asleep else one.keeps or {}
        for device, size_mib in taken.items():
            if device in left:
                left[device] -= size_mib
    where = {device: size_mib for device, size_mib in left.items() if size_mib > 0}
    if not where:
        return None
    awake = [one for one in leavers if not one.is_asleep]
    sleep = tuple(sorted(one.model_id for one in awake if one.keeps is not None and not one.is_dead))
    end = tuple(sorted(one.model_id for one in awake if one.model_id not in sleep))
    return Placement({lease_id(name): where}, sleep, end, dict.fromkeys((*sleep, *end), name))


def refusal(request: LeaseRequest, refused: CannotPlace, occupants: Iterable[Occupant]) -> tuple[str, str]:
    """Return why a lease cannot be had, and the command that frees memory."""
    holders = [one for one in occupants if one.is_lease or (one.pinned and not one.is_asleep)]
    size = "a whole device" if request.size_mib is None else size_text(request.size_mib * MIB)
    where = f" of {request.device}" if request.device else ""
    message = f"no room for the lease {request.name} ({size}{where})"
    if refused.short_mib:
        message += f": {size_text(refused.short_mib * MIB)} are missing"
    for one in holders:
        message += f"; {_title(one)} has {share_text(one.uses)}"
    return message, _command(holders)


def _command(holders: Sequence[Occupant]) -> str:
    for one in holders:
        name = lease_name(one.model_id)
        return f"mmd lease end {name}" if name is not None else f"mmd sleep {one.model_id}   # it is pinned"
    return "mmd status   # the memory of each device"


def _title(one: Occupant) -> str:
    name = lease_name(one.model_id)
    return f"the lease {name}" if name is not None else f"{one.model_id}, which is pinned,"


def _may_hold(request: LeaseRequest, device: Device, devices: Sequence[Device]) -> bool:
    if request.device is not None:
        return device.id == request.device
    return device.id != RAM or all(other.id == RAM for other in devices)


def _place_on(
    request: LeaseRequest, size_mib: int, occupants: Sequence[Occupant], among: Sequence[Device], *, by_user: bool
) -> Placement | CannotPlace:
    if not among:
        return CannotPlace(f"there is no device {request.device}", 0)
    ids = {device.id for device in among}
    wanted = Wanted(lease_id(request.name), (Shape(1, size_mib),))
    # Models on other devices must not leave: their share of these devices is empty.
    here = [one for one in occupants if ids & {*one.uses, *(one.keeps or {})}]
    return place([wanted], here, among, by_user=by_user)


def _stays(one: Occupant, *, by_user: bool) -> bool:
    return one.is_lease or (one.pinned and not by_user and not one.is_dead)


def _cost(found: Placement, device: Device, occupants: Iterable[Occupant]) -> tuple[object, ...]:
    leavers = [one for one in occupants if one.model_id in (*found.sleep, *found.end)]
    dearest = max(((one.pinned, one.in_use, one.last_used) for one in leavers), default=(False, False, 0.0))
    return (len(leavers) > 0, *dearest, len(leavers), -device.capacity_mib, device.id)

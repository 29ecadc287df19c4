"""Decide on which devices a lease is placed, and which models are unloaded for it.

This is not in plan/lease.py, because every command imports that, and placement takes milliseconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmd.plan.lease import LeasePair, LeaseState, lease_id, lease_name
from mmd.plan.placement.place import CannotPlace, Device, Occupant, Placement, Shape, Wanted, capacities, place
from mmd.plan.share import RAM, less, share_text
from mmd.quantities import MIB, size_text


def lease_occupants(leases: Mapping[str, LeasePair]) -> tuple[Occupant, ...]:
    """Return the leases that hold memory or are about to. Of one that ends, only the gate still counts the memory."""
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

    Of whole devices, the one is chosen whose models are the least important, and of equal ones the largest.
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
    """Return the placement of a lease on all memory of every GPU that models can free; None if that is nothing.

    The memory that sleeping models keep is not part of the lease.
    """
    gpus = [device for device in devices if device.id != RAM]
    on_gpus = {device.id for device in gpus}
    leavers = [one for one in occupants if on_gpus & one.uses.keys() and one.may_leave(by_user=by_user)]
    left = less(capacities(gpus), *((one.keeps or {}) if one in leavers else one.holds for one in occupants))
    where = {device: size_mib for device, size_mib in left.items() if size_mib > 0}
    if not where:
        return None
    awake = [one for one in leavers if not one.is_asleep]
    sleep = tuple(sorted(one.model_id for one in awake if one.keeps is not None and not one.is_dead))
    end = tuple(sorted(one.model_id for one in awake if one.model_id not in sleep))
    return Placement({lease_id(name): where}, sleep, end, dict.fromkeys((*sleep, *end), name))


def refusal(
    request: LeaseRequest,
    refused: CannotPlace,
    occupants: Iterable[Occupant],
    devices: Sequence[Device],
    *,
    by_user: bool = False,
) -> tuple[str, str]:
    """Return why a lease cannot be placed, and the command that frees memory on a device that it may use."""
    among = {device.id for device in devices if _may_hold(request, device, devices)}
    staying = [one for one in occupants if not one.is_asleep and not one.may_leave(by_user=by_user)]
    holders = [one for one in staying if among & one.holds.keys()]
    size = "a whole device" if request.size_mib is None else size_text(request.size_mib * MIB)
    where = f" of {request.device}" if request.device else ""
    message = f"the lease {request.name} ({size}{where}) does not fit"
    if refused.short_mib:
        message += f": {size_text(refused.short_mib * MIB)} more are needed"
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
    # Models on other devices must not be unloaded, so they are left out.
    here = [one for one in occupants if ids & {*one.uses, *(one.keeps or {})}]
    return place([wanted], here, among, by_user=by_user)


def _cost(found: Placement, device: Device, occupants: Iterable[Occupant]) -> tuple[object, ...]:
    leavers = [one for one in occupants if one.model_id in (*found.sleep, *found.end)]
    dearest = max(((one.pinned, one.in_use, one.last_used) for one in leavers), default=(False, False, 0.0))
    return (len(leavers) > 0, *dearest, len(leavers), -device.capacity_mib, device.id)

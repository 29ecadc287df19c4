"""Arrange models on devices: where each is placed, which others are unloaded, and what each launch is given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmd.plan.allocation import Allocation
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.divide import allocations
from mmd.plan.placement.place import CannotPlace, Device, Occupant, Placement, capacities, place
from mmd.plan.share import Share


@dataclass(frozen=True, slots=True)
class Arrangement:
    placement: Placement
    allocations: Mapping[str, Allocation]  # in the order in which those that share a device are to load


def arrange(
    demands: Collection[Demand],
    occupants: Sequence[Occupant],
    devices: Sequence[Device],
    *,
    light: Iterable[Demand] = (),
    at: Mapping[str, Share] | None = None,
    evicts: bool = True,
    by_user: bool = False,
    one_each: bool = False,
) -> Arrangement | CannotPlace:
    """Place models with a comfortable context, or else with the least, and divide the free memory among them.

    Memory is left for `light`, the registered light models. `at` has the devices on which wanted models sleep. With
    `one_each`, a device has at most one resident model.
    """
    asleep = at or {}
    known = {one.model_id: one for one in demands}
    fitted = [_fitted(one, demands, occupants, by_user=by_user) if one.takes_all else one for one in demands]
    levels = [[one.shapes for one in fitted]]
    if evicts or not any(one.takes_all for one in demands):  # a model does not spill into RAM to spare residents
        levels.append([one.least_shapes for one in fitted])
    for shapes in levels:
        wanted = [one.wanted(shape, at=asleep.get(one.model_id)) for one, shape in zip(fitted, shapes, strict=True)]
        placed = place(wanted, occupants, devices, evicts=evicts, by_user=by_user, one_each=one_each)
        if isinstance(placed, Placement):
            waking = {one for one, share in asleep.items() if placed.where.get(one) == share}
            given = allocations(placed, known, occupants, devices, light=light, waking=waking, one_each=one_each)
            return Arrangement(replace(placed, where={one: given[one].share for one in placed.where}), given)
        refused = placed
    return refused


def _fitted(demand: Demand, demands: Iterable[Demand], occupants: Iterable[Occupant], *, by_user: bool) -> Demand:
    """Return a demand for whole devices, less what cannot be unloaded from them and what is placed with it."""
    left = capacities(demand.devices)
    names = {one.model_id for one in demands}
    for one in occupants:
        if one.model_id not in names and not one.may_leave(by_user=by_user):
            for device in left.keys() & one.holds.keys():
                left[device] -= one.holds[device]
    for other in demands:
        if other.model_id != demand.model_id and {device.id for device in other.devices} & left.keys():
            largest = max(left, key=lambda device: (left[device], device))
            left[largest] -= other.shapes[0].size_mib
    return replace(demand, devices=tuple(Device(device, max(0, left[device])) for device in left))

"""Divide the free memory of devices among the models that are placed on them: how much context each of them gets.

Models that are loaded together get the same number of tokens, up to what each can use. The rest goes to those that can
use more. Room for registered light models is left, so that they fit on the same GPU as a model that has grown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmd.plan.allocation import Allocation
from mmd.plan.placement.demand import COMFORTABLE_TOKENS, Demand
from mmd.plan.placement.place import Device, Occupant, Placement, capacities, divide_splits
from mmd.plan.share import Share, less

_STEP_TOKENS = 256  # llama.cpp rounds up to it
_MAX_LIGHT_ROOM = 0.15  # of a device

_Room = Mapping[str, int]  # device -> MiB
_Demands = Mapping[str, Demand]


def allocations(
    placement: Placement,
    demands: _Demands,
    occupants: Collection[Occupant],
    devices: Sequence[Device],
    *,
    light: Iterable[Demand] = (),
    waking: Collection[str] = (),
    one_each: bool = False,
) -> dict[str, Allocation]:
    """Return what each placed model is given, in the order in which those that share a device are to load.

    `light` are the registered light models; room is left for those that are not resident. `waking` models keep the
    share of their engines. With `one_each`, a device has one resident model, which gets all that the device has left.
    """
    where, room = placement.where, room_after(placement, occupants, devices)
    starting = {model_id: demands[model_id] for model_id in sorted(where) if model_id not in waking}
    growing = {model_id: one for model_id, one in starting.items() if _holds_least(one, where[model_id])}
    kept = less(room, *(share for model_id, share in where.items() if model_id not in growing))
    if not one_each:
        absent = _absent(light, placement, occupants)
        kept = less(kept, _light_room(absent, growing, where, kept, devices))
    # Memory is better spent on a model whose layers are partly in RAM than on a long context of another.
    most_tokens = COMFORTABLE_TOKENS if len(growing) < len(starting) else None
    levels, shares = _Filling(growing, where, kept, most_tokens).fill()
    left = less(kept, *(shares[model_id] for model_id in growing))
    for model_id, one in starting.items():
        # Alone on a GPU an engine takes what is free. In RAM it takes what it needs, and keeps that while it sleeps.
        if (one_each and one.on_gpu) or model_id not in growing or levels[model_id] < one.most_tokens:
            share = shares.get(model_id, where[model_id])
            shares[model_id] = {device: size_mib + left[device] for device, size_mib in share.items()}
            left = {device: 0 if device in share else size_mib for device, size_mib in left.items()}
    return _given({**where, **shares}, levels, demands, room, devices)


def room_after(placement: Placement, occupants: Iterable[Occupant], devices: Iterable[Device]) -> dict[str, int]:
    """Return what each device has for the placed models when the leavers are unloaded."""
    taken: list[Share] = []
    for one in occupants:
        if one.model_id in placement.where or one.model_id in placement.end:
            continue
        taken.append((one.keeps or {}) if one.is_asleep or one.model_id in placement.sleep else one.uses)
    return less(capacities(devices), *taken)


def _light_room(
    absent: Iterable[Demand], growing: _Demands, where: Mapping[str, Share], room: _Room, devices: Iterable[Device]
) -> dict[str, int]:
    """Return the room that growing models leave for these light models, on one device and at most 15 % of it.

    It is enough for as many light models as fit with the growing ones at their placed sizes. Models that fit on other
    devices need no room.
    """
    grown_on = {device for model_id in growing for device in where[model_id]}
    elsewhere = {device: size_mib for device, size_mib in room.items() if device not in grown_on}
    needed: list[Demand] = []
    for one in sorted(absent, key=lambda one: (one.least_mib, one.model_id)):
        usable = sorted({device.id for device in one.devices} & elsewhere.keys())
        if roomy := next((name for name in usable if elsewhere[name] >= one.least_mib), None):
            elsewhere[roomy] -= one.least_mib
        else:
            needed.append(one)
    best: dict[str, int] = {}
    for device in sorted(devices, key=lambda device: device.id):
        if device.id not in grown_on:
            continue
        most_mib, taken_mib = int(device.capacity_mib * _MAX_LIGHT_ROOM), 0
        for one in needed:
            more_mib = taken_mib + one.least_mib
            can_lie = any(other.id == device.id for other in one.devices) and more_mib <= most_mib
            if can_lie and _fit(growing, where, less(room, {device.id: more_mib})):
                taken_mib = more_mib
        if taken_mib > sum(best.values()):
            best = {device.id: taken_mib}
    return best


def _fit(models: _Demands, where: Mapping[str, Share], room: _Room) -> bool:
    """True if the models fit into the room at their placed sizes; their layers may be divided in another ratio."""
    left, shares, splits = dict(room), {}, []
    for model_id, one in models.items():
        share = where[model_id]
        shape = one.shape(one.least_tokens, len(share))
        if shape.total_mib:
            divided_mib = sum(share.values()) - shape.count * shape.each_mib
            splits.append((model_id, replace(shape, total_mib=divided_mib), tuple(share)))
            share = dict.fromkeys(share, shape.each_mib)
        shares[model_id] = share
        left = less(left, share)
    return min(left.values(), default=0) >= 0 and divide_splits(tuple(splits), left, shares) is not None


def _absent(light: Iterable[Demand], placement: Placement, occupants: Iterable[Occupant]) -> list[Demand]:
    leaving = {*placement.sleep, *placement.end}
    resident = {one.model_id for one in occupants if not one.is_asleep and one.model_id not in leaving}
    return [one for one in light if one.model_id not in resident and one.model_id not in placement.where]


def _holds_least(demand: Demand, share: Share) -> bool:
    shape = demand.shape(demand.least_tokens, len(share))
    return min(share.values()) >= shape.each_mib and sum(share.values()) >= shape.size_mib


@dataclass(frozen=True, slots=True)
class _Filling:
    """Models that grow on the devices where they are placed, within the room of these devices."""

    models: _Demands
    where: Mapping[str, Share]
    room: _Room
    most_tokens: int | None = None  # of each model

    def fill(self) -> tuple[dict[str, int], dict[str, Share]]:
        """Return tokens and share of each model: raise all together, then those on devices that have room left."""
        levels = {model_id: one.least_tokens for model_id, one in self.models.items()}
        if self._shares(levels) is None:  # another division of the layers would be needed: keep the placement
            return levels, {model_id: self.where[model_id] for model_id in levels}
        rising = tuple(sorted(levels))
        while rising:
            levels = self._highest(levels, rising)
            can_rise = tuple(one for one in rising if self._highest(levels, (one,)) != levels)
            if can_rise == rising:  # each can have one step more, but not all of them together
                for one in rising:
                    levels = self._highest(levels, (one,))
                break
            rising = can_rise
        return levels, self._shares(levels) or {}

    def _highest(self, levels: dict[str, int], rising: Collection[str]) -> dict[str, int]:
        """Return the levels with the `rising` models at the same, largest number of tokens that fits."""
        low = min((levels[one] for one in rising), default=0) // _STEP_TOKENS
        high = -(-max(self._limit(one) for one in rising) // _STEP_TOKENS) + 1
        found = levels
        while high - low > 1:
            middle = (low + high) // 2
            raised = self._raised(levels, rising, middle * _STEP_TOKENS)
            if self._shares(raised) is None:
                high = middle
            else:
                low, found = middle, raised
        return found

    def _raised(self, levels: dict[str, int], rising: Collection[str], tokens: int) -> dict[str, int]:
        return {**levels, **{one: max(levels[one], min(tokens, self._limit(one))) for one in rising}}

    def _limit(self, model_id: str) -> int:
        most_tokens = self.models[model_id].most_tokens
        return most_tokens if self.most_tokens is None else min(most_tokens, self.most_tokens)

    def _shares(self, levels: Mapping[str, int]) -> dict[str, Share] | None:
        """Return the shares for these tokens; None if they do not fit."""
        left, shares, splits = dict(self.room), {}, []
        for model_id, tokens in levels.items():
            devices = tuple(self.where[model_id])
            shape = self.models[model_id].shape(tokens, len(devices))
            shares[model_id] = dict.fromkeys(devices, shape.each_mib)
            if shape.total_mib:
                splits.append((model_id, shape, devices))
            left = less(left, shares[model_id])
        if any(left[device] < 0 for share in shares.values() for device in share):
            return None
        found = divide_splits(tuple(splits), left, shares)
        return None if found is None else {model_id: dict(share) for model_id, share in found.items()}


def _given(
    shares: Mapping[str, Share], levels: Mapping[str, int], demands: _Demands, room: _Room, devices: Sequence[Device]
) -> dict[str, Allocation]:
    """Return the allocations in the order of loading: engines that spill into RAM load last."""
    given, free = {}, dict(room)
    whole = capacities(devices)
    for model_id in sorted(shares, key=lambda one: (demands[one].spills, one)):
        share = shares[model_id]
        given[model_id] = demands[model_id].allocation(
            share,
            levels.get(model_id, demands[model_id].least_tokens),
            is_alone=all(size_mib >= whole[device] for device, size_mib in share.items()),
            free_mib={device: free[device] for device in share},
        )
        free = less(free, share)
    return given

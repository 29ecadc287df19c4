"""Predict where a model would be placed and what it would unload, given the swaps that are planned or under way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mmd.plan.placement.arrange import arrange
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.place import CannotPlace, Device, Occupant
from mmd.plan.queue import Claims, Forecast, NoRoom
from mmd.plan.share import Share, total_share


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The devices, the models and leases that hold them now, and the light models that need room, too."""

    devices: Sequence[Device]
    occupants: Sequence[Occupant]
    light: Sequence[Demand] = ()
    one_each: bool = False  # a device has one resident model


def forecast(
    demand: Demand,
    around: Surroundings,
    *,
    present: Sequence[str],
    claimed: Claims,
    at: Share | None = None,
) -> Forecast | NoRoom:
    """Predict where a model is placed and which models are unloaded for it.

    `present` and `claimed` are as in `queue.Forecaster`; `at` is the share in which the model sleeps. Sleeping models,
    dead ones and leases count with what they hold now. Other models that are in neither argument are being unloaded.
    """
    name = demand.model_id
    occupants = [*_occupants(name, around.occupants, present, claimed), *_coming(around.occupants, present, claimed)]
    found = arrange(
        [demand],
        occupants,
        around.devices,
        light=around.light,
        at={name: at} if at is not None else None,
        one_each=around.one_each,
    )
    if isinstance(found, CannotPlace):
        return NoRoom(found.why)
    placement, by_name = found.placement, {one.model_id: one for one in occupants}
    gone = [by_name[one] for one in (*placement.sleep, *placement.end) if one in by_name]
    before = total_share(one.holds for one in gone)
    kept = (by_name[one].keeps or {} for one in placement.sleep if one in by_name)
    after = total_share((placement.where[name], *kept))
    claim = {device: max(before.get(device, 0), after.get(device, 0)) for device in {*before, *after}}
    return Forecast(frozenset(one.model_id for one in gone) & frozenset(present), claim)


def _occupants(name: str, occupants: Iterable[Occupant], present: Sequence[str], claimed: Claims) -> Iterable[Occupant]:
    for one in occupants:
        if one.model_id == name or (one.is_asleep and claimed.get(one.model_id) is not None):
            continue  # a sleeping model that is about to wake counts with its claim
        if one.is_lease or one.is_dead or one.is_asleep:
            yield one
        elif one.model_id in present:
            yield _movable(replace(one, uses=claimed.get(one.model_id) or one.uses), present)
        elif one.model_id in claimed:
            yield _fixed(replace(one, uses=claimed[one.model_id] or one.uses))


def _coming(occupants: Iterable[Occupant], present: Sequence[str], claimed: Claims) -> Iterable[Occupant]:
    """Yield the models that are not loaded yet: of earlier turns, or of swaps under way."""
    here = {one.model_id for one in occupants if not one.is_asleep}
    for model_id, share in claimed.items():
        if share is not None and model_id not in here:
            coming = Occupant(model_id, share)
            yield _movable(coming, present) if model_id in present else _fixed(coming)


def _movable(one: Occupant, present: Sequence[str]) -> Occupant:
    """Return an occupant that leaves at its position in `present`."""
    return replace(one, last_used=float(present.index(one.model_id)), pinned=False, in_use=False)


def _fixed(one: Occupant) -> Occupant:
    return replace(one, pinned=True)

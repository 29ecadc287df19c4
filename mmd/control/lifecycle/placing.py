"""Plan a swap: where the wanted models lie, which others leave for them, and how each is started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmd.control.lifecycle.leftovers import remove_leftovers
from mmd.control.state.leases import lease_pids
from mmd.errors import DoesNotFit, GpuLeased, GpuPinned
from mmd.journal import about
from mmd.plan.allocation import Allocation
from mmd.plan.lease import lease_name
from mmd.plan.placement.arrange import Arrangement, arrange
from mmd.plan.placement.occupancy import Occupancy, Use, held, occupancy
from mmd.plan.placement.place import CannotPlace, Device, Occupant, capacities
from mmd.plan.queue import NoRoom
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import Action, Leavers, action, gpu_holders, leavers, waits_for, why
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import FINGERPRINT, Admission, Hooks, fingerprint

if TYPE_CHECKING:
    from mmd.control.lifecycle.planner import LaunchPlanner
    from mmd.plan.launch import Launch
    from mmd.plan.share import Share
    from mmd.units.bus import Manager
    from mmd.units.watch import Pairs, UnitStates

_log = logging.getLogger(__name__)

_MAY_BE_KEPT = (Residency.RESIDENT, Residency.STARTING, Residency.ASLEEP)


@dataclass(frozen=True, slots=True)
class ActivationRequest:
    """What an activation asks for, through all its attempts."""

    model_ids: tuple[str, ...]
    evicts: bool = True  # it may unload other models
    by_user: bool = True  # it may unload pinned models
    staying: frozenset[str] = frozenset()  # models that must not be unloaded for it
    devices: frozenset[str] | None = None  # the only devices on which it may place models; None: any


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """One swap, ready to be submitted."""

    launches: Mapping[str, Launch]  # of the models that come, in the order in which they load
    actions: Mapping[str, Action]  # of all wanted models
    why: Mapping[str, str]
    admissions: Mapping[str, Admission]
    left: Leavers
    restarted: tuple[str, ...] = ()  # of the wanted models: resident ones that start again with another share
    holders: tuple[str, ...] = ()  # the models that stay beside them
    load_after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def awaited(self) -> tuple[str, ...]:
        """The models whose start is in progress already."""
        return tuple(model_id for model_id, done in self.actions.items() if done is Action.AWAIT)


@dataclass(frozen=True, slots=True)
class EndFirst:
    """End these engines and tokens, and look again: nothing can be planned beside them."""

    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Units of these models are on their way out; look again when they are gone."""

    model_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a placement is planned with."""

    devices: tuple[Device, ...]
    occupied: Occupancy

    def end_first(self) -> EndFirst | None:
        """Return the stranded engines, and log them; None if there are none."""
        for model_id in self.occupied.stranded:
            _log.warning("%s is awake without its token; ending it", model_id, extra=about(model_id))
        units = tuple(map(engine_unit, self.occupied.stranded))
        return EndFirst(units) if units else None


class Placer:
    """Plans swaps from the units, the machine and the settings as they are at each call. It keeps no state."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner) -> None:
        self._manager = manager
        self._hooks = hooks
        self._planner = planner

    async def view(self, states: UnitStates) -> View:
        """Return the devices, read from the machine now, and what holds them. The caller holds the planner lock."""
        await asyncio.to_thread(remove_leftovers, states)
        pids = await lease_pids(self._manager, states.leases)
        devices = await self._planner.devices(held(states.pairs, states.leases), pids)
        uses = await self._uses(states.pairs)
        return View(devices, occupancy(states.pairs, states.leases, devices, uses))

    async def step(self, request: ActivationRequest, states: UnitStates) -> SwapPlan | EndFirst | LookAgain | NoRoom:
        """Plan a swap. The caller holds the planner lock.

        Raises what planning a launch raises, DoesNotFit, GpuLeased and GpuPinned.
        """
        pairs, view = states.pairs, await self.view(states)
        if (end_first := view.end_first()) is not None:
            return end_first
        actions = {model_id: await self._action(model_id, pairs) for model_id in request.model_ids}
        if taken := tuple(model_id for model_id, done in actions.items() if done is Action.LOOK_AGAIN):
            return LookAgain(taken)
        reasons = {model_id: why(pairs.get(model_id, Pair()), done) for model_id, done in actions.items()}
        come = [model_id for model_id, done in actions.items() if done not in (Action.NOTHING, Action.AWAIT)]
        if not come:
            return SwapPlan({}, actions, reasons, {}, Leavers((), (), (), {}))
        at = {model_id: _at(pairs[model_id]) for model_id in come if actions[model_id] is Action.WAKE}
        one_each = await self._planner.one_each()
        found = await self._arrange(request, come, at, view, one_each=one_each)
        restarted: Sequence[str] = ()
        for restarted in await self._restartable(request, actions, view) if isinstance(found, NoRoom) else ():
            again = [model_id for model_id in request.model_ids if model_id in (*come, *restarted)]
            found = await self._arrange(request, again, at, view, one_each=one_each)
            if not isinstance(found, NoRoom):
                actions |= dict.fromkeys(restarted, Action.REPLACE)
                break
        if isinstance(found, NoRoom):
            return found
        placement = found.placement
        moved = {model_id: Action.REPLACE for model_id in at if dict(placement.where[model_id]) != dict(at[model_id])}
        left = leavers(placement, view.occupied)
        launches = {
            model_id: await self._planner.launch(model_id, allocation=allocation)
            for model_id, allocation in found.allocations.items()
        }
        return SwapPlan(
            launches=launches,
            actions={**actions, **moved},
            why=reasons,
            admissions={
                model_id: _admission(launch, left, view, one_each=one_each) for model_id, launch in launches.items()
            },
            left=left,
            restarted=tuple(restarted),
            holders=tuple(one for one in gpu_holders(pairs) if one not in left.tokens),
            load_after=_loads_after(launches),
        )

    async def _restartable(
        self, request: ActivationRequest, actions: Mapping[str, Action], view: View
    ) -> Sequence[Sequence[str]]:
        """Return which resident models of a set may be started again for the others, in the order in which to try.

        A model that came alone has grown into what its device had left, so another of its set finds no room. Light
        models do not grow.
        """
        if not request.evicts:
            return ()
        resident = [one for one, done in actions.items() if done is Action.NOTHING and one not in request.staying]
        grown = [one for one in resident if not (await self._planner.demand(one, view.devices)).is_light]
        return [some for some in (grown, resident) if some]

    async def _action(self, model_id: str, pairs: Pairs) -> Action:
        pair = pairs.get(model_id, Pair())
        is_same = False
        if pair.engine.loaded and pair.holding is not None and residency(pair) in _MAY_BE_KEPT:
            launch = await self._planner.launch(model_id, allocation=Allocation(pair.holding.uses))
            is_same = await self._was_made_from(launch)
        return action(pair, same_launch=is_same)

    async def _was_made_from(self, launch: Launch) -> bool:
        service = await self._manager.service(engine_unit(launch.model_id))
        return f"{FINGERPRINT}={fingerprint(launch, self._hooks)}" in service["Environment"]

    async def _arrange(
        self, request: ActivationRequest, come: Sequence[str], at: Mapping[str, Share], view: View, *, one_each: bool
    ) -> Arrangement | NoRoom:
        """Place the models that come. Raises DoesNotFit, and GpuLeased or GpuPinned if what stays in any case holds the
        memory.
        """
        devices, occupants = view.devices, view.occupied.occupants
        demands = [await self._planner.demand(model_id, devices) for model_id in come]
        light = await self._planner.light_demands(devices)

        def attempt(
            beside: Sequence[Occupant], on: Sequence[Device] = devices, *, evicts: bool = True
        ) -> Arrangement | CannotPlace:
            return arrange(
                demands, beside, on, light=light, at=at, evicts=evicts, by_user=request.by_user, one_each=one_each
            )

        among = [one for one in devices if request.devices is None or one.id in request.devices]
        staying = request.staying | (set(request.model_ids) - set(come))
        kept = [
            replace(one, is_lease=True) if one.model_id in staying and not one.is_dead else one for one in occupants
        ]
        found = attempt(kept, among, evicts=request.evicts)
        if isinstance(found, Arrangement):
            return found
        if isinstance(alone := attempt(()), CannotPlace):
            others = f"; {self._planner.other_programs}" if self._planner.other_programs else ""
            raise DoesNotFit(f"{alone.why}{others}", hint="mmd status   # what uses the memory of each device")
        if isinstance(blocked := attempt(occupants), CannotPlace):
            leases = [name for one in occupants if (name := lease_name(one.model_id)) is not None]
            if leases and isinstance(attempt([one for one in occupants if not one.is_lease]), Arrangement):
                raise GpuLeased(blocked.why, hint=f"mmd lease end {leases[0]}   # or wait until its program ends")
            hint = f"mmd activate {request.model_ids[0]}   # unloads pinned models, too"
            raise GpuPinned(blocked.why, hint=hint)
        return NoRoom(found.why)

    async def _uses(self, pairs: Pairs) -> Mapping[str, Use]:
        """Return when each resident model was used last; without a gateway, when it became resident."""
        known, pinned = self._planner.uses(), await self._planner.pinned()
        unknown = [model_id for model_id, pair in pairs.items() if pair.holds_gpu and model_id not in known]
        since = {}
        for model_id in unknown:
            token = await self._manager.unit(token_unit(model_id))
            since[model_id] = Use(int(token["ActiveEnterTimestampMonotonic"]) / 1_000_000)
        uses = {**dict.fromkeys(pinned, Use()), **since, **known}
        return {model_id: replace(use, pinned=use.pinned or model_id in pinned) for model_id, use in uses.items()}


def _at(pair: Pair) -> Share:
    """Return where a sleeping model wakes."""
    assert pair.holding is not None
    return pair.holding.uses


def _admission(launch: Launch, left: Leavers, view: View, *, one_each: bool) -> Admission:
    going = waits_for(launch.share, left, view.occupied)
    return Admission(
        capacity=capacities(view.devices),
        waits_for=going,
        conflicts=frozenset(one for one in going if lease_name(one) is None) if one_each else frozenset(),
        alone=one_each,
    )


def _loads_after(launches: Mapping[str, Launch]) -> Mapping[str, tuple[str, ...]]:
    """Return the models that each one loads after: engines measure a GPU when they load, so one loads at a time."""
    order = tuple(launches)
    return {
        model_id: tuple(
            before
            for before in order[:index]
            if launches[model_id].uses_gpu and launches[before].share.keys() & launches[model_id].share.keys()
        )
        for index, model_id in enumerate(order)
    }

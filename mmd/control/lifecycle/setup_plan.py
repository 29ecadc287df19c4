"""Plan a setup: what each of its models needs and would get, and which of them fit if all of them do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

from mmd.control.models.setups import Setup
from mmd.errors import DoesNotFit, ManagerUnreachable, MemoryTaken, MmdError, PlacementChanged
from mmd.quantities import MIB
from mmd.units.bus import Manager
from mmd.units.watch import UnitStates, read_states

if TYPE_CHECKING:
    from mmd.control.lifecycle.activation import Activation
    from mmd.control.lifecycle.controller import Controller
    from mmd.control.lifecycle.planner import LaunchPlanner
    from mmd.plan.placement.arrange import Arrangement
    from mmd.plan.placement.demand import Demand
    from mmd.plan.placement.place import CannotPlace, Device
    from mmd.plan.residency import Pair

_MAX_PARTS = 256  # subsets of a setup that are tried


@dataclass(frozen=True, slots=True)
class PlannedMember:
    """A model of a setup: the least memory that it needs, the bytes that it would get of each device, and its context.

    `devices` is empty if the setup does not fit. `context` is 0 if the engine takes what fits into its share.
    """

    id: str
    least_bytes: int
    devices: Mapping[str, int]
    context: int


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """How a setup would lie on the devices if all other models left. `problem` says why it does not fit."""

    members: tuple[PlannedMember, ...]
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PlannedNow:
    """The plan of a setup, with the units of its models and what people call the devices.

    `unknown` says why the units could not be read; "" if they are known.
    """

    plan: SetupPlan
    pairs: Mapping[str, Pair]
    device_names: Mapping[str, str]
    unknown: str = ""


async def plan_setup(planner: LaunchPlanner, setup: Setup, held_mib: Mapping[str, int]) -> SetupPlan:
    """Plan a setup on the machine as it is now; models and leases hold `held_mib` of its devices.

    Raises what planning one of its models raises.
    """
    from mmd.plan.placement.arrange import Arrangement

    devices = await planner.devices(held_mib)
    demands = [await planner.demand(one, devices) for one in setup.models]
    placed = await _arranged(planner, demands, devices)
    if not isinstance(placed, Arrangement):
        members = tuple(PlannedMember(one.model_id, one.least_mib * MIB, {}, 0) for one in demands)
        return SetupPlan(members, placed.why, await _hint(planner, setup, demands, devices))
    found = []
    for one in demands:
        allocation = placed.allocations[one.model_id]
        launch = await planner.launch(one.model_id, allocation=allocation)
        share = {device: size_mib * MIB for device, size_mib in allocation.share.items()}
        found.append(PlannedMember(one.model_id, one.least_mib * MIB, share, launch.context))
    return SetupPlan(tuple(found))


async def planned_now(setup: Setup) -> PlannedNow:
    """Plan a setup over new connections. If planning fails, the plan's `problem` says why."""
    from mmd.control.lifecycle.planner import LaunchPlanner
    from mmd.control.state.machine_reader import MachineReader
    from mmd.plan.placement.occupancy import held
    from mmd.plan.share import RAM, device_ids
    from mmd.registry.store import Registry

    states, unknown = UnitStates({}, {}), ""
    try:
        async with await Manager.connect() as manager:
            states = await read_states(manager)
    except ManagerUnreachable as error:
        unknown = error.message
    async with MachineReader() as reader:
        try:
            plan = await plan_setup(LaunchPlanner(reader, Registry()), setup, held(states.pairs, states.leases))
        except MmdError as error:
            plan = SetupPlan((), error.message, error.hint)
        gpus = device_ids((await reader.machine()).gpus)
    names = {device: f"GPU {gpu.index}" for device, gpu in gpus.items()} | {RAM: "RAM"}
    return PlannedNow(plan, states.pairs, names, unknown)


async def activate_setup(
    controller: Controller,
    setup: Setup,
    *,
    evicts: bool = True,
    staying: Collection[str] = (),
) -> Activation:
    """Activate the models of a setup together, as `Controller.activate` does.

    If they do not fit, the error says what each of them needs, and its hint reduces the setup to those that fit.
    """
    async with _parts_named(controller, setup):
        return await controller.activate(setup.models, evicts=evicts, staying=staying)


async def would_unload(controller: Controller, setup: Setup) -> tuple[str, ...]:
    """Return the models that activating a setup would unload now, or start again. Raises as `activate_setup`."""
    async with _parts_named(controller, setup):
        return await controller.would_unload(setup.models)


@asynccontextmanager
async def _parts_named(controller: Controller, setup: Setup) -> AsyncIterator[None]:
    from mmd.plan.placement.occupancy import held

    try:
        yield
    except DoesNotFit as error:
        planner, states = controller.planner, await read_states(controller.manager)
        devices = await planner.devices(held(states.pairs, states.leases))
        demands = [await planner.demand(one, devices) for one in setup.models]
        hint = await _hint(planner, setup, demands, devices)
        raise DoesNotFit(f"the setup {setup.name} does not fit: {error.message}", hint=hint) from error
    except (MemoryTaken, PlacementChanged) as error:
        raise type(error)(error.message, hint=f"mmd activate {setup.name}   # unloads other models") from error


async def _arranged(
    planner: LaunchPlanner, demands: Sequence[Demand], devices: Sequence[Device]
) -> Arrangement | CannotPlace:
    from mmd.plan.placement.arrange import arrange

    light, one_each = await planner.light_demands(devices), await planner.one_each()
    return arrange(demands, (), devices, light=light, one_each=one_each)


async def _hint(planner: LaunchPlanner, setup: Setup, demands: Sequence[Demand], devices: Sequence[Device]) -> str:
    """Return a command that reduces the setup to models that fit: as many as possible, the first ones preferred."""
    from mmd.plan.placement.arrange import Arrangement

    parts = (part for count in range(len(demands) - 1, 0, -1) for part in combinations(demands, count))
    for part in islice(parts, _MAX_PARTS):
        if isinstance(await _arranged(planner, part, devices), Arrangement):
            kept = [one.model_id for one in part]
            without = ", ".join(one.model_id for one in demands if one.model_id not in kept)
            return f"mmd setup add {setup.name} {' '.join(kept)}   # fits, without {without}"
    return "mmd status   # what uses the memory of each device"

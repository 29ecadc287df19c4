"""Move a level-1 sleeper to level 2, or stop it, to free its RAM."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.lifecycle.units import new_swap_slice
from mmd.control.state.leases import lease_pids
from mmd.control.state.sleep_record import asleep_level, write_level
from mmd.errors import MmdError
from mmd.journal import about
from mmd.plan.allocation import Allocation
from mmd.plan.launch import Launch
from mmd.plan.placement.occupancy import held, occupancy
from mmd.plan.placement.place import Device, Placement, Shape, Wanted, capacities, place
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.bus import JobResult, Manager
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import FINGERPRINT, Admission, Hooks, fingerprint, swap_spec, token_spec
from mmd.units.watch import UnitStates, read_pairs, read_states

_log = logging.getLogger(__name__)

_DEEP = 2  # vLLM's level that keeps no weights in RAM


async def demote(manager: Manager, model_id: str, hooks: Hooks, planner: LaunchPlanner) -> str | None:
    """See `Controller.demote`."""
    async with planner_lock():
        states = await read_states(manager)
        pair = states.pairs.get(model_id, Pair())
        if residency(pair) is not Residency.ASLEEP:
            return None
        launch = await _running_launch(manager, model_id, pair, hooks, planner)
        became = "stopped"
        if launch and _can_go_deeper(launch) and await _go_deeper(manager, launch, hooks, states, planner):
            became = f"level {_DEEP}"
        else:
            await manager.run_job(engine_unit(model_id), manager.stop(engine_unit(model_id)))
    _log.info("%s freed the RAM of its weights: it is now %s", model_id, became, extra=about(model_id))
    return became


async def stop_asleep(manager: Manager, model_id: str) -> bool:
    """See `Controller.stop_asleep`."""
    async with planner_lock():
        if residency((await read_pairs(manager)).get(model_id, Pair())) is not Residency.ASLEEP:
            return False
        await manager.run_job(engine_unit(model_id), manager.stop(engine_unit(model_id)))
    return True


async def _running_launch(
    manager: Manager, model_id: str, pair: Pair, hooks: Hooks, planner: LaunchPlanner
) -> Launch | None:
    """Return the launch of the running engine; None if it would be started differently now, or not at all."""
    if pair.holding is None:  # units of mmd 0.1
        return None
    try:
        launch = await planner.launch(model_id, allocation=Allocation(pair.holding.uses))
    except MmdError as error:
        _log.info("%s can no longer be planned: %s", model_id, error.message, extra=about(model_id))
        return None
    environment = (await manager.service(engine_unit(model_id)))["Environment"]
    if f"{FINGERPRINT}={fingerprint(launch, hooks)}" not in environment:
        return None
    return replace(launch, share=pair.holding.uses, keeps=pair.holding.keeps)


def _can_go_deeper(launch: Launch) -> bool:
    return launch.sleep is not None and _DEEP in launch.sleep.levels and asleep_level(launch.model_id) < _DEEP


async def _go_deeper(
    manager: Manager, launch: Launch, hooks: Hooks, states: UnitStates, planner: LaunchPlanner
) -> bool:
    """Wake the model and put it to sleep at the deeper level; return whether it sleeps at that level.

    vLLM cannot change the level of a sleeping engine. The token is started for it, so no other model gets its memory
    meanwhile, and an activation in between takes precedence.
    """
    name, token = launch.model_id, token_unit(launch.model_id)
    pids = await lease_pids(manager, states.leases)
    devices = await planner.devices(held(states.pairs, states.leases), pids)
    one_each = await planner.one_each()
    if not _has_room(launch, states, devices, one_each=one_each):
        return False
    admission = Admission(capacities(devices), alone=one_each)
    swap = swap_spec(new_swap_slice(), [name], ())
    woken = await manager.run_job(token, manager.start_transient(swap, token_spec(launch, hooks, admission)))
    if woken is JobResult.DONE:
        write_level(name, _DEEP)
    await manager.run_job(token, manager.stop(token))
    is_asleep = residency((await read_pairs(manager)).get(name, Pair())) is Residency.ASLEEP
    return is_asleep and asleep_level(name) == _DEEP


def _has_room(launch: Launch, states: UnitStates, devices: Sequence[Device], *, one_each: bool) -> bool:
    """True if the model can be awake where it sleeps, and no other model has to leave."""
    occupied = occupancy(states.pairs, states.leases, devices, {})
    here = Wanted(launch.model_id, (Shape(len(launch.share), max(launch.share.values(), default=0)),), at=launch.share)
    found = place([here], occupied.occupants, devices, evicts=False, one_each=one_each)
    return isinstance(found, Placement) and dict(found.where[launch.model_id]) == dict(launch.share)

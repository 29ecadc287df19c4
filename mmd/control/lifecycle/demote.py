"""Move a level-1 sleeper to level 2, or stop it, to free its RAM."""

from __future__ import annotations

import logging
from dataclasses import replace

from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.lifecycle.units import new_swap_slice
from mmd.control.state.sleep_record import asleep_level, write_level
from mmd.errors import MmdError
from mmd.journal import about
from mmd.plan.allocation import Allocation
from mmd.plan.launch import Launch
from mmd.plan.occupancy import held
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import gpu_holder
from mmd.units.bus import JobResult, Manager
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import FINGERPRINT, Admission, Hooks, fingerprint, swap_spec, token_spec
from mmd.units.watch import Pairs, UnitStates, read_pairs, read_states

_log = logging.getLogger(__name__)

_DEEP = 2  # vLLM's level that keeps no weights in RAM


async def demote(manager: Manager, model_id: str, hooks: Hooks, planner: LaunchPlanner) -> str | None:
    """See `Controller.demote`."""
    async with planner_lock():
        states = await read_states(manager)
        pairs = states.pairs
        if residency(pairs.get(model_id, Pair())) is not Residency.ASLEEP:
            return None
        launch = await _running_launch(manager, model_id, hooks, planner, pairs[model_id])
        became = "stopped"
        if launch and _can_go_deeper(launch, pairs) and await _go_deeper(manager, launch, hooks, states, planner):
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
    manager: Manager, model_id: str, hooks: Hooks, planner: LaunchPlanner, pair: Pair
) -> Launch | None:
    """Return the launch of the running engine; None if it would be started differently now, or not at all."""
    allocation = Allocation(pair.holding.uses) if pair.holding is not None else None
    try:
        launch = await planner.launch(model_id, allocation=allocation)
    except MmdError as error:
        _log.info("%s can no longer be planned: %s", model_id, error.message, extra=about(model_id))
        return None
    environment = (await manager.service(engine_unit(model_id)))["Environment"]
    return launch if f"{FINGERPRINT}={fingerprint(launch, hooks)}" in environment else None


def _can_go_deeper(launch: Launch, pairs: Pairs) -> bool:
    is_able = launch.sleep is not None and _DEEP in launch.sleep.levels
    return is_able and asleep_level(launch.model_id) < _DEEP and gpu_holder(pairs) is None


async def _go_deeper(
    manager: Manager, launch: Launch, hooks: Hooks, states: UnitStates, planner: LaunchPlanner
) -> bool:
    """Wake the model and put it to sleep at the deeper level; return whether it sleeps at that level.

    vLLM cannot change the level of a sleeping engine. The token is started for it, so no other model has the GPU
    meanwhile, and an activation in between takes precedence.
    """
    name, token, holding = launch.model_id, token_unit(launch.model_id), states.pairs[launch.model_id].holding
    if holding is None:
        return False
    launch = replace(launch, share=holding.uses, keeps=holding.keeps)
    capacity = {device.id: device.capacity_mib for device in await planner.devices(held(states.pairs, states.leases))}
    admission = Admission(capacity)
    swap = swap_spec(new_swap_slice(), [name], ())
    woken = await manager.run_job(token, manager.start_transient(swap, token_spec(launch, hooks, admission)))
    if woken is JobResult.DONE:
        write_level(name, _DEEP)
    await manager.run_job(token, manager.stop(token))
    is_asleep = residency((await read_pairs(manager)).get(name, Pair())) is Residency.ASLEEP
    return is_asleep and asleep_level(name) == _DEEP

"""Submit a planned swap as one D-Bus call, and end units that stand in its way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from mmd.control.lifecycle.placing import SwapPlan
from mmd.paths import runtime_dir, user_runtime_dir
from mmd.plan.swap import Action
from mmd.units.bus import Manager, UnitJob
from mmd.units.bus_errors import NoSuchUnit, UnitExists
from mmd.units.directives import Command
from mmd.units.names import engine_unit, split, swap_slice, token_unit
from mmd.units.spec import Hooks, UnitSpec, engine_spec, mark_of, swap_spec, token_spec

# How often a swap or a lease is planned again because a gate refused it: units changed by hand, or another program took
# memory.
MAX_REFUSALS = 3
# How long to wait for units that are being stopped. A model falls asleep in up to 90 s, see `Hooks`.
LOOK_AGAIN_SECONDS = 120.0

# systemd collects a unit that has ended in the next step of its event loop, unless a live unit names it.
_NAME_TIMEOUT_SECONDS = 0.05
_NAME_CHECK_SECONDS = 0.005

_numbers = count(1)


async def submit(manager: Manager, hooks: Hooks, plan: SwapPlan) -> Mapping[str, UnitJob]:
    """Start what the plan says. Return for each model the job that ends with its start.

    Raises UnitExists or NoSuchUnit, and starts nothing, if units have changed since they were read: by systemctl,
    because an engine has died, or because systemd has collected a unit.
    """
    replaced = [model_id for model_id in plan.launches if plan.actions[model_id] is Action.REPLACE]
    await end_units(manager, [unit for model_id in replaced for unit in (engine_unit(model_id), token_unit(model_id))])
    units: list[UnitSpec] = []
    for model_id, launch in plan.launches.items():
        refusal_file(model_id).unlink(missing_ok=True)
        units.append(token_spec(launch, hooks, plan.admissions[model_id]))
        if plan.actions[model_id] is not Action.WAKE:
            # systemd removes the socket's folder when the engine ends, unless systemd itself was killed meanwhile.
            Path(launch.socket).unlink(missing_ok=True)  # noqa: ASYNC240 on a tmpfs
            units.append(engine_spec(launch, hooks, loads_after=plan.load_after.get(model_id, ())))
    new_units = await _not_loaded(manager, units)
    awaited = {
        model_id: token_unit(model_id) if plan.actions[model_id] is Action.WAKE else engine_unit(model_id)
        for model_id in plan.launches
    }
    leaving = (*map(token_unit, plan.left.tokens), *map(engine_unit, plan.left.engines))
    swap = swap_spec(new_swap_slice(), plan.launches, leaving)
    return await manager.submit_all(awaited, manager.start_transient(swap, *new_units))


def new_swap_slice() -> str:
    """Return a name for the slice of a swap that no other planner uses."""
    return swap_slice(os.getpid(), next(_numbers))


async def jobs_in_progress(manager: Manager, model_ids: Iterable[str]) -> Mapping[str, UnitJob]:
    """Return the jobs of starts that another activation has submitted: of the engine, or else of the token (a wake)."""
    found = {}
    for model_id in model_ids:
        has_engine_job = await manager.queued_job(engine_unit(model_id))
        unit = engine_unit(model_id) if has_engine_job else token_unit(model_id)
        found[model_id] = await manager.watch_job(unit)
    return found


async def end_units(manager: Manager, units: Iterable[str]) -> None:
    """Stop units, the engines at once and before the tokens, and clear their failures."""
    names = tuple(units)
    engines = [unit for unit in names if (split(unit) or ("", ""))[0] == "model"]
    for group in (engines, [unit for unit in names if unit not in engines]):
        await asyncio.gather(*(_end(manager, unit) for unit in group))


async def _end(manager: Manager, unit: str) -> None:
    await manager.run_job(unit, manager.stop(unit))
    await manager.reset_failed(unit)


def refusal_file(model_id: str) -> Path:
    """Return the file in which the gate of a model's token says why it refused it."""
    return runtime_dir() / f"{model_id}~refused"


def read_refusal(model_id: str) -> str:
    """Return why the gate refused a model's token; "" if it did not."""
    try:
        return refusal_file(model_id).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


async def _not_loaded(manager: Manager, units: Sequence[UnitSpec]) -> Sequence[UnitSpec]:
    """Wait until the names of these units are free; return the units to create.

    A dead token stays loaded while the Conflicts= of a live token names it (residency = "one"), and so does its engine.
    A dead engine also stays loaded while the After= of a live engine names it. If all loaded units equal these ones,
    they are used again; otherwise they are removed.
    """
    names = [spec.name for spec in units]
    end = asyncio.get_running_loop().time() + _NAME_TIMEOUT_SECONDS
    while left := {unit.name: unit for unit in await manager.units(names) if unit.load_state == "loaded"}:
        if busy := [unit for unit in left.values() if unit.job or unit.active_state not in ("inactive", "failed")]:
            raise UnitExists("org.freedesktop.systemd1.UnitExists", f"{busy[0].name} is {busy[0].active_state}")
        if all([await _is_equal(manager, spec) for spec in units if spec.name in left]):
            return [spec for spec in units if spec.name not in left]
        if asyncio.get_running_loop().time() > end:
            for name in left:
                (user_runtime_dir() / "systemd/transient" / name).unlink(missing_ok=True)
            await manager.reload()
            break
        await asyncio.sleep(_NAME_CHECK_SECONDS)
    return units


async def _is_equal(manager: Manager, spec: UnitSpec) -> bool:
    """Return whether the loaded unit equals this one, and is still loaded."""
    try:
        service = await manager.service(spec.name)
    except NoSuchUnit:
        return False
    command = next(one.value for one in spec.directives if isinstance(one, Command) and one.name == "ExecStart")
    loaded = tuple(word.replace("$$", "$") for row in service["ExecStart"] for word in row[1])
    return mark_of(spec) in service["Environment"] and loaded == command

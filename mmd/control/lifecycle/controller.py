"""Operate on models: activate, sleep, stop, suspend, status. The CLI and the gateway use this module."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mmd.control.lifecycle.idle_rules import IdleRules
from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.state.last_asked import note_asked
from mmd.control.state.machine_reader import MachineReader
from mmd.control.state.refused_flags import RefusedFlags
from mmd.control.state.residencies import active_of, next_active
from mmd.control.state.sleep_record import asleep_level, write_level
from mmd.control.state.status import Status, read_status
from mmd.errors import WrongUsage
from mmd.plan.residency import Pair, Residency, residency
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import read_settings
from mmd.units.bus import Manager
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.watch import read_pairs, read_states

# Modules that plan and carry out a swap are imported by the first one: an idle gateway saves their memory.
if TYPE_CHECKING:
    from mmd.control.lifecycle.activation import Activation
    from mmd.control.lifecycle.lease import Lessor
    from mmd.control.lifecycle.swap import Swapper
    from mmd.plan.launch import Launch
    from mmd.units.spec import Hooks


def unit_hooks(folder: Path = Path(__file__).parents[2] / "hooks") -> Hooks:
    """Return the commands of the hooks, run by this Python, isolated and without site packages."""
    import shutil

    from mmd.units.spec import Hooks

    def hook(name: str) -> tuple[str, ...]:
        return (sys.executable, "-I", "-S", str(folder / f"{name}.py"))

    return Hooks(
        ready=hook("ready"),
        gate=hook("gate"),
        wake=hook("wake"),
        release=hook("release"),
        wait_released=hook("wait_released"),
        test=shutil.which("test") or "/usr/bin/test",
    )


def unit_texts(launch: Launch) -> dict[str, str]:
    """Return the two units of a launch as unit files, by name. A swap adds the models that the gate waits for."""
    from mmd.units.spec import Admission, engine_spec, token_spec

    hooks = unit_hooks()
    token = token_spec(launch, hooks, Admission(launch.share))
    return {spec.name: spec.text() for spec in (token, engine_spec(launch, hooks))}


class Controller:
    """Operates on models over one connection to the user manager. Use it as an async context manager.

    Owns the connection, the machine reader and the planner.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.settings = read_settings()
        self.idleness = IdleRules(self.settings)
        self.reader = MachineReader()
        self.planner = LaunchPlanner(self.reader, self.registry)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self.reader.close)
        self.manager = await self._stack.enter_async_context(await Manager.connect())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @cached_property
    def _hooks(self) -> Hooks:
        return unit_hooks()

    async def lessor(self) -> Lessor:
        """Return what takes and ends leases."""
        module = await self.reader.call(import_module, "mmd.control.lifecycle.lease")  # as in `activate`
        lessor: Lessor = module.Lessor(self.manager, self._hooks, self.planner, self.reader)
        return lessor

    def pinned(self) -> frozenset[str]:
        return self.idleness.pinned()

    async def status(self) -> Status:
        return await read_status(self.manager, self.reader)

    async def residencies(self) -> Mapping[str, Residency]:
        """Return the residency of each model that has a unit; the others are absent."""
        return {model_id: residency(pair) for model_id, pair in (await read_pairs(self.manager)).items()}

    async def activate(
        self,
        models: str | Sequence[str],
        *,
        drain_seconds: float = 0.0,
        evicts: bool = True,
        by_user: bool = True,
        staying: Collection[str] = (),
        devices: Collection[str] | None = None,
        occasion: str = "",
    ) -> Activation:
        """Make a model or a set of models resident; return when they answer. Planning errors are raised before any
        model is unloaded.

        If `evicts` is false, raise MemoryTaken instead of unloading a model; `by_user` unloads pinned models, too. If
        it would unload the models `staying`, or use others than these `devices`, raise PlacementChanged.
        `drain_seconds` and `occasion` are only recorded.
        """
        swap = await self.reader.call(import_module, "mmd.control.lifecycle.swap")  # 40 ms: not on the event loop
        swapper: Swapper = swap.Swapper(self.manager, self._hooks, self.planner)
        ids = (models,) if isinstance(models, str) else tuple(models)
        if evicts:  # a restore or a boot does not evict, and no user or request has asked for its models
            for model_id in reversed(ids):  # of a set, the first that generates text is the active one
                note_asked(model_id)
        only = None if devices is None else frozenset(devices)
        request = swap.ActivationRequest(ids, evicts=evicts, by_user=by_user, staying=frozenset(staying), devices=only)
        done = await swapper.activate(request, drain_seconds=drain_seconds, occasion=occasion)
        if "load" in done.phases:
            from mmd.control.lifecycle.confirmation import confirm_in_background

            for launch in done.launches.values():
                await confirm_in_background(self.manager, launch)
        return done

    async def would_unload(self, models: Sequence[str]) -> tuple[str, ...]:
        """Return the models that activating this set would unload now, or start again. Raises what planning raises."""
        placing = await self.reader.call(import_module, "mmd.control.lifecycle.placing")
        placer = placing.Placer(self.manager, self._hooks, self.planner)
        async with planner_lock():
            step = await placer.step(placing.ActivationRequest(tuple(models)), await read_states(self.manager))
        return (*step.left.evicted, *step.restarted) if isinstance(step, placing.SwapPlan) else ()

    async def sleep(self, model_id: str | None = None, level: int | None = None) -> tuple[str, ...]:
        """Put a model (by default the active one) to sleep, or stop it if its engine cannot sleep.

        `level` is the sleep level; the default is the lightest that RAM allows. Return the models that released the GPU
        or changed their level. Raises WrongUsage if the model cannot sleep at that level.
        """
        from mmd.control.lifecycle.missing_hook import kill_if_hook_missing

        pairs = await read_pairs(self.manager)
        if model_id is None:
            model_id = active_of(pairs) or next_active(pairs)
        else:
            self.registry.get(model_id)
        if model_id is None:
            return ()
        pair = pairs.get(model_id, Pair())
        if level is not None:
            await self._require_level(model_id, level)
            if residency(pair) is Residency.ASLEEP:
                return await self._deepen(model_id, level)
        if not pair.holds_gpu:
            return ()
        if level is not None:
            write_level(model_id, level)
        await kill_if_hook_missing(self.manager, model_id, self._hooks)
        token = token_unit(model_id)
        await self.manager.run_job(token, self.manager.stop(token))
        return (model_id,)

    async def _require_level(self, model_id: str, level: int) -> None:
        sleep = (await self.planner.launch(model_id)).sleep
        if sleep is None or level not in sleep.levels:
            can = f"only at {', '.join(str(one) for one in sleep.levels)}" if sleep else "its engine cannot sleep"
            raise WrongUsage(f"{model_id} cannot sleep at level {level}: {can}", hint=f"mmd sleep {model_id}")

    async def _deepen(self, model_id: str, level: int) -> tuple[str, ...]:
        now = asleep_level(model_id)
        if level == now:
            return ()
        if level < now:
            raise WrongUsage(
                f"{model_id} sleeps at level {now} and has no weights in RAM that level {level} could keep",
                hint=f"mmd activate {model_id} && mmd sleep {model_id} --level {level}",
            )
        return (model_id,) if await self.demote(model_id) else ()

    async def demote(self, model_id: str) -> str | None:
        """Free the RAM of a sleeping model's weights. Return its new state, or None if it was not asleep.

        The state is "level 2" if the engine has that level and its share is free: the change needs the share for a
        moment. Otherwise it is "stopped".
        """
        from mmd.control.lifecycle.demote import demote

        return await demote(self.manager, model_id, self._hooks, self.planner)

    async def suspend(self, *, drain_seconds: float = 0.0) -> None:
        """Take all models off the GPUs and record which. `drain_seconds` is only recorded."""
        from mmd.control.lifecycle.suspend import suspend_models

        await suspend_models(self.manager, self._hooks, drain_seconds=drain_seconds)

    async def restore(self, model_id: str) -> Activation:
        """Activate a model that was resident before the machine suspended, if that unloads no other model."""
        return await self.activate(model_id, evicts=False, occasion="the machine is awake again")

    async def stop_asleep(self, model_id: str) -> bool:
        """Stop a model if it is asleep. Return False if it is not, for example because it was woken meanwhile."""
        from mmd.control.lifecycle.demote import stop_asleep

        return await stop_asleep(self.manager, model_id)

    async def stop(self, model_id: str | None = None) -> tuple[str, ...]:
        """Stop a model, or all, and clear their failures. Return the models whose engine ran."""
        pairs = await read_pairs(self.manager)
        if model_id is not None and model_id not in pairs:
            self.registry.get(model_id)
        selected = [name for name in sorted(pairs) if model_id in (None, name)]
        # Engines first: their tokens have nothing to put to sleep then.
        await asyncio.gather(*(self._end(engine_unit(name)) for name in selected))
        for name in selected:
            await self._end(token_unit(name))
        ran = (name for name in selected if residency(pairs[name]) not in (Residency.ABSENT, Residency.FAILED))
        return tuple(ran)

    async def _end(self, unit: str) -> None:
        await self.manager.run_job(unit, self.manager.stop(unit))
        await self.manager.reset_failed(unit)

    async def remove(self, model_id: str) -> Model:
        """Close a model's tunnel, stop it and remove it from the registry; its files stay."""
        from mmd.control.tunnel.tunnels import close_tunnels

        self.registry.get(model_id)
        await close_tunnels(self.manager, [model_id])
        await self.stop(model_id)
        RefusedFlags().forget(model_id)
        return self.registry.remove(model_id)

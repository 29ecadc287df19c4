"""Compare and start the two units of a launch: its engine and its token."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mmd.paths import user_runtime_dir
from mmd.plan.launch import Launch
from mmd.plan.swap import AwaitStart, Start
from mmd.units.bus import Manager, NoSuchUnit, UnitExists, UnitJob
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import FINGERPRINT, Hooks, engine_spec, fingerprint, token_spec
from mmd.units.watch import Pairs


async def same_launch(manager: Manager, launch: Launch, hooks: Hooks, pairs: Pairs) -> bool:
    """Return whether the loaded engine unit was made from an equal launch.

    If the engine is down, its whole command line must be equal, including flags that depend on the memory free now.
    """
    pair = pairs.get(launch.model_id)
    if pair is None or not pair.engine.loaded:
        return False
    service = await manager.service(engine_unit(launch.model_id))
    if f"{FINGERPRINT}={fingerprint(launch, hooks)}" not in service["Environment"]:
        return False
    return pair.engine.active in ("active", "activating") or _argv(service) == launch.argv


async def submit(manager: Manager, launch: Launch, hooks: Hooks, step: Start | AwaitStart) -> UnitJob:
    """Carry out a step. Return the job that ends with the activation."""
    token, engine = token_unit(launch.model_id), engine_unit(launch.model_id)
    awaited = token if step.wakes else engine
    if isinstance(step, AwaitStart):
        return await manager.submit(awaited, manager.start(token))
    if step.forget:
        await forget(manager, launch.model_id)
    await manager.reset_failed(engine)
    if not step.wakes:
        # systemd removes the folder when the engine ends, unless systemd itself was killed meanwhile.
        Path(launch.socket).unlink(missing_ok=True)  # noqa: ASYNC240 on a tmpfs
    made = token_spec(launch, hooks, step.rivals)
    pair = made, engine_spec(launch, hooks)
    # Units appear and disappear between reading and calling: by systemctl, because an engine dies, or because systemd
    # collects a token that no unit refers to. A sleeping engine is forgotten last.
    if step.has_token:
        with suppress(NoSuchUnit):
            return await manager.submit(awaited, manager.start(token))
    if step.has_engine:
        with suppress(UnitExists, NoSuchUnit):
            return await manager.submit(awaited, manager.start_transient(made))
    else:
        with suppress(UnitExists, NoSuchUnit):
            return await manager.submit(awaited, manager.start_transient(*pair))
    await forget(manager, launch.model_id)
    return await manager.submit(engine, manager.start_transient(*pair))


async def forget(manager: Manager, model_id: str) -> None:
    """Free the names of a model's units: they stay loaded while a rival's Conflicts= names the token."""
    for unit in (engine_unit(model_id), token_unit(model_id)):
        await manager.run_job(unit, manager.stop(unit))
        await manager.reset_failed(unit)
        (user_runtime_dir() / "systemd/transient" / unit).unlink(missing_ok=True)
    await manager.reload()


def _argv(service: dict[str, Any]) -> tuple[str, ...]:
    """Return the command line of a loaded unit. systemd doubles `$` on the way in and out."""
    return tuple(word.replace("$$", "$") for command in service["ExecStart"] for word in command[1])

"""A launch made resident: one decision, one D-Bus call, and the previous model back if it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmd.control.journal import last_lines, telling_line
from mmd.control.status import how_it_ended
from mmd.errors import EngineFailed, MmdError, SwapSuperseded
from mmd.paths import user_runtime_dir
from mmd.plan.launch import Launch
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import Already, Begin, Join, comes_back, decide, holder, taken_since
from mmd.units.bus import Job, JobResult, Manager, NoSuchUnit, UnitExists
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import FINGERPRINT, Hooks, engine_spec, fingerprint, token_spec
from mmd.units.watch import Pairs, read_pairs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Activation:
    """How an activation went: what was done and why, who went for it, and how long it took."""

    model_id: str
    why: str
    evicted: str | None
    seconds: float


async def activate(manager: Manager, launch: Launch, hooks: Hooks, launch_of: Callable[[str], Launch]) -> Activation:
    """Make `launch` resident; returns when it answers. `launch_of` chooses anew for the model that is to come back.

    Raises EngineFailed, naming the cause and who is resident instead, and SwapSuperseded where another activation
    took the GPU in between.
    """
    began = time.monotonic()
    since_us = time.time_ns() // 1000
    wanted = launch.model_id
    async with planner_lock():
        pairs = await read_pairs(manager)
        if pairs.get(wanted, Pair()).waits_to_restart:
            await manager.run_job(engine_unit(wanted), manager.stop(engine_unit(wanted)))
            pairs = await read_pairs(manager)
        step = decide(wanted, pairs, same_launch=await _same_launch(manager, launch, hooks, pairs))
        if isinstance(step, Already):
            return Activation(wanted, step.why, None, time.monotonic() - began)
        previous = step.previous if isinstance(step, Begin) else None
        job = await _submit(manager, launch, hooks, step)
    goes = f"; {previous} goes" if previous else ""
    _log.info("activating %s (%s)%s", wanted, step.why, goes, extra=_fields(wanted))
    result = await job.result()
    wakes = isinstance(step, Begin) and step.wakes
    if result is JobResult.DONE and wakes and not await _is_resident(manager, wanted):
        # It died asleep, or could not be woken and was ended: it is being started. Where it did wake, asking for a
        # start again would leave a job on the token, and for as long it would seem to be starting.
        result = await manager.run_job(engine_unit(wanted), manager.start(token_unit(wanted)))
    if result is JobResult.DONE:
        # A job that is done says that the engine was up. It may have ended since, or been stopped.
        pair = (await read_pairs(manager)).get(wanted, Pair())
        if residency(pair) is Residency.RESIDENT:
            return Activation(wanted, step.why, previous, time.monotonic() - began)
        result = JobResult.FAILED if pair.token.active == "active" else JobResult.CANCELED
    if result is JobResult.CANCELED:
        raise await _superseded(manager, wanted)
    cause = await _cause(manager, wanted, since_us)
    returned = await _bring_back(manager, wanted, previous, hooks, launch_of)
    _log.warning("%s did not start: %s%s", wanted, cause, returned, extra=_fields(wanted))
    raise EngineFailed(
        f"{wanted} did not start: {cause}{returned}", hint=f"mmd logs {wanted}   # the engine's own words"
    )


async def _is_resident(manager: Manager, model_id: str) -> bool:
    return residency((await read_pairs(manager)).get(model_id, Pair())) is Residency.RESIDENT


async def _submit(manager: Manager, launch: Launch, hooks: Hooks, step: Begin | Join) -> Job:
    """Carry out a step. Returns the job whose end is the activation's end."""
    token, engine = token_unit(launch.model_id), engine_unit(launch.model_id)
    if isinstance(step, Join):
        return await manager.submit(engine, manager.start(token))
    if step.forget:
        await _forget(manager, launch.model_id)
    await manager.reset_failed(engine)
    if not step.wakes:
        # systemd removes the folder when the engine ends, but not if it was itself killed in between.
        Path(launch.socket).unlink(missing_ok=True)  # noqa: ASYNC240 on a tmpfs
    awaited = token if step.wakes else engine
    made = token_spec(launch, hooks, step.rivals)
    pair = made, engine_spec(launch, hooks)
    try:
        if step.has_token:
            return await manager.submit(awaited, manager.start(token))
        return await manager.submit(awaited, manager.start_transient(*((made,) if step.has_engine else pair)))
    except (UnitExists, NoSuchUnit):
        # Units came or went between our look and our call: by systemctl, or because an engine died.
        await _forget(manager, launch.model_id)
        return await manager.submit(engine, manager.start_transient(*pair))


async def _forget(manager: Manager, model_id: str) -> None:
    """Free the names of a model's units, which stay loaded while a rival's Conflicts= names the token."""
    units = engine_unit(model_id), token_unit(model_id)
    for unit in units:
        await manager.run_job(unit, manager.stop(unit))
        await manager.reset_failed(unit)
        (user_runtime_dir() / "systemd/transient" / unit).unlink(missing_ok=True)
    await manager.reload()


async def _same_launch(manager: Manager, launch: Launch, hooks: Hooks, pairs: Pairs) -> bool:
    """Whether the model's loaded engine unit was made from an equal launch."""
    pair = pairs.get(launch.model_id)
    if pair is None or not pair.engine.loaded:
        return False
    environment = (await manager.service(engine_unit(launch.model_id)))["Environment"]
    return f"{FINGERPRINT}={fingerprint(launch, hooks)}" in environment


async def _superseded(manager: Manager, wanted: str) -> SwapSuperseded:
    winner = holder(await read_pairs(manager), besides=wanted)
    by = f"{winner} was asked for in between" if winner else "it was stopped in between"
    return SwapSuperseded(f"{wanted} did not become resident: {by}", hint=f"mmd activate {wanted}")


async def _bring_back(
    manager: Manager, failed: str, previous: str | None, hooks: Hooks, launch_of: Callable[[str], Launch]
) -> str:
    """Give the GPU back to who had it. Says how that went, as the end of a sentence."""
    async with planner_lock():
        pairs = await read_pairs(manager)
        if previous is None or not comes_back(previous, failed, pairs):
            if not taken_since(failed, pairs):
                await manager.stop(token_unit(failed))  # or systemd would go on trying to restart it
            return ""
        try:
            launch = launch_of(previous)
        except MmdError as error:
            await manager.stop(token_unit(failed))
            return f"; {previous} cannot come back: {error.message}"
        step = decide(previous, pairs, same_launch=await _same_launch(manager, launch, hooks, pairs))
        assert not isinstance(step, Already)  # it would hold the GPU, and then it would not have to come back
        job = await _submit(manager, launch, hooks, step)
    back = await job.result() is JobResult.DONE
    return f"; {previous} is resident again" if back else f"; {previous} did not come back either"


async def _cause(manager: Manager, model_id: str, since_us: int) -> str:
    """What the engine died of, in its own words where it left any."""
    said = telling_line(await last_lines(model_id, since_us=since_us))
    try:
        service = await manager.service(engine_unit(model_id))
        how = how_it_ended(str(service["Result"]), int(service["ExecMainStatus"]))
    except NoSuchUnit:
        how = how_it_ended("success", 0)  # systemd keeps the unit of an engine that failed
    return f"{how}: {said}" if said else how


def _fields(model_id: str) -> dict[str, str]:
    return {"MMD_MODEL": model_id, "MMD_UNIT": engine_unit(model_id)}

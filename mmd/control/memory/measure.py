"""Measure the memory of starts while their models are resident: from the driver, the engine's log and its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from mmd.control.memory import starts_log
from mmd.control.memory.engine_plan import EnginePlan, served
from mmd.control.memory.estimate import Estimator
from mmd.control.memory.starts_log import StartRecord
from mmd.control.state.engine_log import lines_between
from mmd.control.state.status import resident_bytes
from mmd.errors import MmdError
from mmd.machine import Machine, read_machine
from mmd.plan.breakdown import Breakdown
from mmd.plan.measurement import Observation
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.share import device_ids
from mmd.registry.identity import identity
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings
from mmd.units.bus import Manager
from mmd.units.names import engine_unit
from mmd.units.watch import read_pairs

# An engine logs its load before it answers; journald may be a little late.
_JOURNAL_DELAY_US = 1_000_000

_log = logging.getLogger(__name__)


async def measure_now() -> tuple[StartRecord, ...]:
    """Call `measure_starts` with a connection of its own. Raises ManagerUnreachable."""
    async with await Manager.connect() as manager:
        return await measure_starts(manager, read_settings())


async def measure_starts(manager: Manager, settings: Settings) -> tuple[StartRecord, ...]:
    """Measure and record the starts of resident models that were not measured yet."""
    known = {start.invocation for start in starts_log.read_starts()}
    recorded = []
    for model_id, pair in (await read_pairs(manager)).items():
        if residency(pair) is not Residency.RESIDENT:
            continue
        try:
            start = await _measured(manager, Registry().get(model_id), settings, known, pair)
        except (MmdError, OSError) as error:
            _log.info("cannot measure %s: %s", model_id, error)
            continue
        if start is not None:
            starts_log.append(start)
            recorded.append(start)
    return tuple(recorded)


async def _measured(
    manager: Manager, model: Model, settings: Settings, known: set[str], pair: Pair
) -> StartRecord | None:
    """Return None if it was measured already, or if the model would be started with another engine now."""
    unit = await manager.unit(engine_unit(model.id))
    whole = read_machine()
    invocation, machine = bytes(unit["InvocationID"]).hex(), machine_of(whole, engine_unit(model.id), pair)
    plan = served(model, machine, settings)
    (command,) = await manager.commands(engine_unit(model.id), "ExecStart")
    if invocation in known or plan.engine is None or command[: len(plan.engine.command)] != plan.engine.command:
        return None
    engine = plan.engine.engine
    log = engine.read_load_log(await _load_lines(model.id, unit))
    service = await manager.service(engine_unit(model.id))
    total_bytes, gpus = _taken(machine, engine_unit(model.id), int(service["MainPID"]), on_gpu=plan.on_gpu)
    estimating = Estimator(machine, settings)
    answer = estimating.answer(model, log.context, asks_engine=False)
    predicted = answer.estimate.components
    # The engine's own report would be about all GPUs.
    is_all = len(machine.gpus) == len(whole.gpus)
    breakdown = _breakdown(estimating, model, plan, answer.estimate.context) if is_all else None
    sizes = engine.measure(Observation(gpus, total_bytes, log, breakdown, predicted))
    return StartRecord(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        invocation=invocation,
        model=model.id,
        weights=identity(model.files),
        engine=plan.title,
        # If mmd.toml has changed since, the next start will have another command.
        command=starts_log.command_hash(plan.command if {*plan.command} <= {*command} else command),
        gpu=estimating.gpu(plan),
        context=answer.estimate.context,
        predicted=asdict(predicted) | {"total_bytes": predicted.total_bytes},
        measured={name: size_bytes for name, size_bytes in sizes.items() if size_bytes is not None},
        compute_factor=answer.constants.compute_factor,
    )


async def _load_lines(model_id: str, unit: Mapping[str, Any]) -> list[str]:
    since_us, ready_us = int(unit["InactiveExitTimestamp"]), int(unit["ActiveEnterTimestamp"])
    return await lines_between(model_id, since_us=since_us, until_us=ready_us + _JOURNAL_DELAY_US)


def machine_of(machine: Machine, unit: str, pair: Pair) -> Machine:
    """Return the machine with the GPUs that a model uses, if they are known: its memory is predicted for those."""
    used = [gpu for gpu in machine.gpus if any(process.unit == unit for process in gpu.processes)]
    if not used and pair.holding is not None:
        used = [gpu for device, gpu in device_ids(machine.gpus).items() if device in pair.holding.uses]
    return replace(machine, gpus=tuple(used)) if used else machine


def _taken(machine: Machine, unit: str, pid: int, *, on_gpu: bool) -> tuple[int | None, int]:
    """Return the bytes that the processes of a unit use, and on how many GPUs: 0 for RAM."""
    if not on_gpu:
        return resident_bytes(pid), 0
    uses = [[process.used_bytes for process in gpu.processes if process.unit == unit] for gpu in machine.gpus]
    used = [use for gpu in uses for use in gpu]
    known = [use for use in used if use is not None]
    total_bytes = sum(known) if used and len(known) == len(used) else None
    return total_bytes, max(1, sum(bool(gpu) for gpu in uses))


def _breakdown(estimating: Estimator, model: Model, plan: EnginePlan, context: int) -> Breakdown | None:
    try:
        return estimating.breakdown(model, plan, context)
    except MmdError as error:
        _log.info("%s does not report what %s takes: %s", plan.title, model.id, error.message)
        return None

"""What starts have taken, measured while their models are resident: by the driver, by the engine's log, by the engine
itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
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
from mmd.plan.residency import Residency, residency
from mmd.registry.identity import identity
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings
from mmd.units.bus import Manager
from mmd.units.names import engine_unit
from mmd.units.watch import read_pairs

# What an engine says of its load comes before it answers, and journald may be a little behind.
_JOURNAL_DELAY_US = 1_000_000

_log = logging.getLogger(__name__)


async def learn_now() -> tuple[StartRecord, ...]:
    """As `learn`, over a connection of its own. Raises ManagerUnreachable."""
    async with await Manager.connect() as manager:
        return await learn(manager, read_settings())


async def learn(manager: Manager, settings: Settings) -> tuple[StartRecord, ...]:
    """Measure the starts of whoever is resident, where that was not done yet, and keep what was found."""
    known = {start.invocation for start in starts_log.kept()}
    learned = []
    for model_id, pair in (await read_pairs(manager)).items():
        if residency(pair) is not Residency.RESIDENT:
            continue
        try:
            start = await _measured(manager, Registry().get(model_id), settings, known)
        except (MmdError, OSError) as error:
            _log.info("what %s takes is not measured: %s", model_id, error)
            continue
        if start is not None:
            starts_log.keep(start)
            learned.append(start)
    return tuple(learned)


async def _measured(manager: Manager, model: Model, settings: Settings, known: set[str]) -> StartRecord | None:
    """None where it was measured, or where the engine is not the one that the model would be started with now."""
    unit = await manager.unit(engine_unit(model.id))
    invocation, machine = bytes(unit["InvocationID"]).hex(), read_machine()
    by = served(model, machine, settings)
    (command,) = await manager.commands(engine_unit(model.id), "ExecStart")
    if invocation in known or by.engine is None or command[: len(by.engine.command)] != by.engine.command:
        return None
    engine = by.engine.engine
    log = engine.read_load_log(await _load_lines(model.id, unit))
    service = await manager.service(engine_unit(model.id))
    total_bytes, gpus = _taken(machine, engine_unit(model.id), int(service["MainPID"]), on_gpu=by.on_gpu)
    estimating = Estimator(machine, settings)
    answer = estimating.answer(model, log.context, asks_engine=False)
    predicted = answer.estimate.components
    breakdown = _breakdown(estimating, model, by, answer.estimate.context)
    sizes = engine.measure(Observation(gpus, total_bytes, log, breakdown, predicted))
    return StartRecord(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        invocation=invocation,
        model=model.id,
        weights=identity(model.files),
        engine=by.title,
        # Where mmd.toml has changed since, the next start will be another one.
        command=starts_log.command_hash(by.command if {*by.command} <= {*command} else command),
        gpu=estimating.gpu(by),
        context=answer.estimate.context,
        predicted=asdict(predicted) | {"total_bytes": predicted.total_bytes},
        measured={name: size_bytes for name, size_bytes in sizes.items() if size_bytes is not None},
        compute_factor=answer.constants.compute_factor,
    )


async def _load_lines(model_id: str, unit: Mapping[str, Any]) -> list[str]:
    since_us, ready_us = int(unit["InactiveExitTimestamp"]), int(unit["ActiveEnterTimestamp"])
    return await lines_between(model_id, since_us=since_us, until_us=ready_us + _JOURNAL_DELAY_US)


def _taken(machine: Machine, unit: str, pid: int, *, on_gpu: bool) -> tuple[int | None, int]:
    """What the processes of a unit have, and on how many GPUs: 0 for RAM."""
    if not on_gpu:
        return resident_bytes(pid), 0
    uses = [[process.used_bytes for process in gpu.processes if process.unit == unit] for gpu in machine.gpus]
    used = [use for gpu in uses for use in gpu]
    known = [use for use in used if use is not None]
    total_bytes = sum(known) if used and len(known) == len(used) else None
    return total_bytes, max(1, sum(bool(gpu) for gpu in uses))


def _breakdown(estimating: Estimator, model: Model, by: EnginePlan, context: int) -> Breakdown | None:
    try:
        return estimating.breakdown(model, by, context)
    except MmdError as error:
        _log.info("%s does not report what %s takes: %s", by.title, model.id, error.message)
        return None

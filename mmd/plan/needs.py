"""Find out what a model needs on a machine, by the formulas of the engine that would serve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mmd.errors import EngineMissing
from mmd.machine import Gpu, Machine
from mmd.plan import fit
from mmd.plan.allocation import Allocation
from mmd.plan.choose import ModelSettings, missing_engine, require_engine, require_fit, without_refused
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed, Planner, ServeOptions
from mmd.plan.placement.demand import COMFORTABLE_TOKENS, Demand
from mmd.plan.placement.place import Device, capacities
from mmd.plan.share import RAM, device_ids
from mmd.quantities import MIB
from mmd.registry.record import Facts, Format, Model

_MAX_INPUT_TOKENS = 8192  # of a light model: inputs are passages, not books


def demand_of(
    model: Model,
    machine: Machine,
    installed: Sequence[Installed],
    devices: Sequence[Device],
    *,
    settings: ModelSettings | None = None,
    projector_bytes: int = 0,
    constants: Constants | None = None,
    measured_on: int | None = None,
    missing: Callable[[Format], EngineMissing] = missing_engine,
) -> Demand:
    """Return what `model` needs on these `devices` of `machine`.

    `constants` are the engine's, as measured here. If they are from a start of this very model, `measured_on` is the
    number of devices of that start. Raises EngineMissing and DoesNotFit, as `choose` does.
    """
    settings = settings or ModelSettings()
    engine = require_engine(model, installed, settings.engine, missing)
    planner, facts = engine.engine, model.facts
    require_fit(model, machine, engine, _alone_words(model, machine, engine, settings), settings, projector_bytes)
    usable = _usable_devices(planner, facts, machine, engine, devices)
    counts = planner.device_counts(model, _largest(machine, usable, len(usable)), engine, settings.arguments)
    known = constants or planner.constants
    memories = {}
    for count in counts or (1,):
        there = _largest(machine, usable, count) if counts else machine
        share = capacities(usable)
        words = _alone_words(model, there, engine, settings, Allocation(share))
        memories[count] = planner.memory(
            facts, there, words, projector_bytes=projector_bytes, on_gpu=bool(counts), constants=known
        )
    fixed = settings.context or next(iter(memories.values())).wanted_context
    tokens = _tokens(facts, fixed, planner.conversations)
    return Demand(
        model.id,
        is_light=not facts.type.generates,
        devices=tuple(usable),
        memories=memories,
        least_tokens=tokens[0],
        comfortable_tokens=tokens[1],
        most_tokens=tokens[2],
        context_tokens=fixed or facts.context_length or fit.MAX_CONTEXT_TOKENS,
        is_fixed=bool(fixed),
        can_sleep=planner.sleep(model, machine, engine) is not None,
        measured_on=measured_on,
        unknown_error_bytes=0 if facts.layout else known.unknown_error_bytes,
    )


def _tokens(facts: Facts, fixed: int, conversations: int) -> tuple[int, int, int]:
    """Return the least, a comfortable and the most useful number of tokens."""
    if fixed:
        return fixed, fixed, fixed * conversations
    trained, least = facts.context_length, fit.min_context(facts.context_length)
    if not facts.type.generates:
        most = max(least, min(trained or _MAX_INPUT_TOKENS, _MAX_INPUT_TOKENS))
        return least, most, most
    return (
        least,
        max(least, min(trained or COMFORTABLE_TOKENS, COMFORTABLE_TOKENS)),
        (trained or fit.MAX_CONTEXT_TOKENS) * conversations,
    )


def _alone_words(
    model: Model, machine: Machine, engine: Installed, settings: ModelSettings, allocation: Allocation | None = None
) -> tuple[str, ...]:
    """Return the words of the command line; with an allocation, only those that do not depend on free memory."""
    options = ServeOptions("", settings.context, settings.aliases, settings.arguments, allocation)
    flags = engine.engine.flags(model, machine, engine, options)
    flags = without_refused(flags, model.id, settings.refused.get(engine.title, {}))
    return tuple(word for flag in flags if allocation is None or not flag.measured for word in flag.words)


def _usable_devices(
    planner: Planner, facts: Facts, machine: Machine, engine: Installed, devices: Sequence[Device]
) -> list[Device]:
    """Return the GPUs that can run the model, largest first, or the RAM for an engine that uses no GPU."""
    if not planner.on_gpu(machine, engine):
        return [device for device in devices if device.id == RAM]
    least = planner.min_capability(facts.quant)
    gpus = device_ids(machine.gpus)
    found = [device for device in devices if device.id in gpus]
    able = [device for device in found if _capability(gpus[device.id]) >= least]
    return sorted(able or found, key=lambda device: (-device.capacity_mib, device.id))


def _capability(gpu: Gpu) -> tuple[int, ...]:
    return tuple(int(number) for number in gpu.compute_capability.split("."))


def _largest(machine: Machine, usable: Sequence[Device], count: int) -> Machine:
    """Return the machine with the first `count` of these devices, without models, in the machine's order."""
    capacities = {device.id: device.capacity_mib * MIB for device in usable[:count]}
    gpus = ((device, gpu) for device, gpu in device_ids(machine.gpus).items() if device in capacities)
    return replace(machine, gpus=tuple(replace(gpu, free_bytes=capacities[device]) for device, gpu in gpus))

"""Plan a launch from a model, its settings, the machine and the installed engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mmd.errors import DoesNotFit, EngineMissing, WrongUsage
from mmd.machine import Machine
from mmd.plan import fit
from mmd.plan.allocation import Allocation
from mmd.plan.engine import Installed, ServeOptions
from mmd.plan.launch import Flag, Launch
from mmd.plan.memory import MemoryModel
from mmd.plan.placement.demand import kept_asleep
from mmd.plan.predict import memory_of
from mmd.plan.share import RAM, Share, device_ids
from mmd.plan.suggestions import UnfitModel, suggestions
from mmd.quantities import MIB, size_text
from mmd.registry.record import Facts, Format, Model


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The settings of one model in mmd.toml (None: mmd decides), and the flags that its engine refused."""

    engine: str | None = None
    context: int | None = None
    ready_seconds: int | None = None
    arguments: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    # Title of the engine -> subject of a flag -> the line in which the engine refused it.
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def choose(
    model: Model,
    machine: Machine,
    installed: Sequence[Installed],
    *,
    socket: str,
    cache: str,
    settings: ModelSettings | None = None,
    projector_bytes: int = 0,
    allocation: Allocation | None = None,
    missing: Callable[[Format], EngineMissing] = lambda form: missing_engine(form),  # noqa: PLW0108 defined below
) -> Launch:
    """Plan how `model` runs on `machine`, with an allocation in exactly its share, else as if it were alone.

    `installed` is in order of preference, `socket` the path that the engine listens on, `cache` the folder that it may
    keep files in, `missing` the error if no engine serves the format. Raises EngineMissing, DoesNotFit and WrongUsage.
    """
    settings = settings or ModelSettings()
    engine = require_engine(model, installed, settings.engine, missing)
    planner = engine.engine
    on_gpu = planner.on_gpu(machine, engine)
    if allocation is not None and not allocation.is_on(machine, on_gpu=on_gpu):
        allocation = None  # a GPU is gone, or the driver works again: the share of the old unit is obsolete
    here = machine if allocation is None else allocation.machine(machine)
    context = settings.context
    options = ServeOptions(socket, context, settings.aliases, settings.arguments, allocation)
    flags = planner.flags(model, here, engine, options)
    flags = without_refused(flags, model.id, settings.refused.get(engine.title, {}))
    words = tuple(word for flag in flags for word in flag.words)
    needs_bytes = require_fit(model, machine, engine, words, settings, projector_bytes)
    argv = (*engine.command, *words)
    ready_seconds = settings.ready_seconds or planner.ready_seconds(model)
    _require_survives_reload(model.id, argv)
    sleep = planner.sleep(model, machine, engine)
    share = _whole_machine(machine, on_gpu=on_gpu) if allocation is None else allocation.share
    return Launch(
        model_id=model.id,
        engine=engine.name,
        title=engine.title,
        type=model.facts.type,
        argv=argv,
        environment=(
            *planner.environment(machine, engine, cache=cache, ready_seconds=ready_seconds),
            *_visible_devices(machine, allocation),
        ),
        context=context or 0,
        needs_bytes=needs_bytes,
        socket=socket,
        share=share,
        sleep=sleep,
        ready_seconds=ready_seconds,
        stop_seconds=planner.stop_seconds,
        exits_zero_on_crash=planner.exits_zero_on_crash,
        flags=flags,
        keeps=None if sleep is None else kept_asleep(share),
    )


def _visible_devices(machine: Machine, allocation: Allocation | None) -> tuple[tuple[str, str], ...]:
    """Return the variable that hides GPUs from the engine, by UUID; it has none to hide on a machine with one."""
    if allocation is None or len(machine.gpus) < 2:
        return ()
    uuids = [gpu.uuid for gpu in machine.gpus if allocation.device_of(gpu) is not None]
    return (("CUDA_VISIBLE_DEVICES", ",".join(uuids)),) if uuids else ()


def _whole_machine(machine: Machine, *, on_gpu: bool) -> Share:
    if not on_gpu:
        return {RAM: fit.ram_budget_bytes(machine) // MIB}
    return {device: gpu.total_bytes // MIB for device, gpu in device_ids(machine.gpus).items()}


def without_refused(flags: tuple[Flag, ...], model_id: str, refused: Mapping[str, str]) -> tuple[Flag, ...]:
    """Return the flags without those that the engine refused, or with the words that replace them.

    `refused` maps the subject of a flag to the line in which the engine refused it.
    """
    return tuple(_unless_refused(flag, model_id, refused) for flag in flags)


def _unless_refused(flag: Flag, model_id: str, refused: Mapping[str, str]) -> Flag:
    if flag.required or not (flag.words or flag.instead) or flag.subject not in refused:
        return flag
    reason = "the engine failed without it before" if flag.instead else "left out: the engine refused it before"
    reason = f"{reason}: {refused[flag.subject]}; try again: mmd activate {model_id} --ask-again"
    return Flag(flag.instead, flag.subject, reason)


def _min_bytes(facts: Facts, memory: MemoryModel, tokens: int, projector_bytes: int) -> int:
    """Return the minimum memory that the model needs; facts recorded by an older mmd allow only a rough estimate."""
    return memory.min_bytes(tokens) if facts.layout else fit.min_bytes(facts, projector_bytes)


def require_fit(
    model: Model,
    machine: Machine,
    engine: Installed,
    words: Sequence[str],
    settings: ModelSettings,
    projector_bytes: int,
) -> int:
    """Return the minimum memory that the model needs. Raise DoesNotFit if the machine never has as much."""
    facts, planner = model.facts, engine.engine
    on_gpu = planner.on_gpu(machine, engine)
    memory = memory_of(planner, facts, machine, words, projector_bytes=projector_bytes, on_gpu=on_gpu)
    tokens = settings.context or fit.min_context(facts.context_length)
    needs_bytes = _min_bytes(facts, memory, tokens, projector_bytes)
    has_bytes = planner.budget_bytes(model, machine, engine)
    if needs_bytes <= has_bytes:
        return needs_bytes
    subject = UnfitModel(model.id, facts.weights_bytes, facts.context_length, tokens)
    suggested = next(iter(suggestions(memory, subject, ())), None)
    instead = f"; it would fit with {suggested.change}" if suggested else ""
    raise DoesNotFit(
        f"{model.id} needs at least {size_text(needs_bytes)}; "
        f"this machine has {size_text(has_bytes)} for models{instead}",
        hint=suggested.command
        if suggested
        else f"mmd machine   # the memory of this machine; a smaller quantisation of {model.id} may fit",
    )


def _require_survives_reload(model_id: str, argv: tuple[str, ...]) -> None:
    """Raise WrongUsage for `$` and `;`: systemd 252 writes a transient unit so that a reload reads them differently."""
    for word in argv:
        if "$" in word or ";" in word:
            raise WrongUsage(
                f"{word!r} contains $ or ;, which systemd loses from a transient unit when it reloads",
                hint=f"mmd remove {model_id}   # then rename it, and: mmd add PATH",
            )


def engine_for(model: Model, installed: Sequence[Installed], wanted: str | None) -> Installed | None:
    """Return the first installed engine that serves the model's format and has the `wanted` name, if there is one."""
    able = (one for one in installed if model.facts.format in one.engine.formats)
    return next((one for one in able if wanted in (None, one.name)), None)


def require_engine(
    model: Model, installed: Sequence[Installed], wanted: str | None, missing: Callable[[Format], EngineMissing]
) -> Installed:
    if found := engine_for(model, installed, wanted):
        return found
    if wanted is None:
        raise missing(model.facts.format)
    raise EngineMissing(
        f"mmd.toml selects {wanted} for {model.id}; it is not installed here or does not serve "
        f"{model.facts.format} files",
        hint=f'${{EDITOR:-nano}} ~/.config/mmd/mmd.toml   # [models."{model.id}"] engine',
    )


def missing_engine(form: Format) -> EngineMissing:
    return EngineMissing(f"no engine for {form} files is installed", hint="mmd engine list")

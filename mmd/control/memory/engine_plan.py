"""Which engine here would serve a model, and under which command line; unlike a launch, whether it fits or not."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mmd.control.models.installed_engines import installed_engines
from mmd.errors import EngineMissing
from mmd.machine import Machine
from mmd.plan.engine import Installed
from mmd.plan.launch import Flag
from mmd.registry.record import Model
from mmd.settings import Settings

_log = logging.getLogger(__name__)


# Where it listens and what it is called: no matter of the memory.
_NAMES = ("--host", "--uds", "--alias", "--served-model-name")


@dataclass(frozen=True, slots=True)
class EnginePlan:
    engine: Installed | None  # None where none is installed that can
    flags: tuple[Flag, ...]
    on_gpu: bool

    @property
    def title(self) -> str:
        """As a launch's: engine and version; "" without one."""
        return self.engine.title if self.engine else ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for flag in self.flags for word in flag.words)

    @property
    def command(self) -> tuple[str, ...]:
        """What the memory that it takes depends on, and is the same at every start."""
        lasting = (flag for flag in self.flags if not flag.measured and flag.subject not in _NAMES)
        return tuple(word for flag in lasting for word in flag.words)


def served(model: Model, machine: Machine, settings: Settings) -> EnginePlan:
    """As mmd.toml has it, where it says anything of the model."""
    engine = _engine(model, settings)
    if engine is None:
        return EnginePlan(None, (), on_gpu=bool(machine.gpus))
    planner = engine.engine
    table = settings.model(model.id)
    try:
        flags = planner.flags(
            model,
            machine,
            engine,
            socket="",
            context=table.context,
            aliases=(),
            arguments=table.arguments,
        )
    except EngineMissing as error:  # this version, or this build, cannot
        _log.info("%s; %s", error.message, error.hint)
        return EnginePlan(None, (), on_gpu=bool(machine.gpus))
    return EnginePlan(engine, flags, on_gpu=planner.on_gpu(machine, engine))


def _engine(model: Model, settings: Settings) -> Installed | None:
    wanted = settings.model(model.id).engine
    try:
        installed = installed_engines(settings)
    except EngineMissing as error:
        _log.info("%s; %s", error.message, error.hint)
        return None
    able = (one for one in installed if model.facts.format in one.engine.formats and wanted in (None, one.name))
    return next(able, None)

"""The engine that would serve a model and its command line; unlike a launch, it is planned even if it does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmd.control.models.installed_engines import installed_engines
from mmd.control.state.refused_flags import RefusedFlags
from mmd.errors import EngineMissing
from mmd.machine import Machine
from mmd.plan.choose import engine_for, without_refused
from mmd.plan.engine import Installed, ServeOptions
from mmd.plan.launch import Flag
from mmd.registry.record import Model
from mmd.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EnginePlan:
    engine: Installed | None  # None if no installed engine can serve the model
    flags: tuple[Flag, ...]
    on_gpu: bool

    @property
    def title(self) -> str:
        """Return engine and version, as in a launch; "" without an engine."""
        return self.engine.title if self.engine else ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for flag in self.flags for word in flag.words)

    @property
    def command(self) -> tuple[str, ...]:
        """Return the words that memory depends on and that are the same at every start."""
        lasting = (flag for flag in self.flags if not flag.measured and not flag.is_address)
        return tuple(word for flag in lasting for word in flag.words)


def served(
    model: Model, machine: Machine, settings: Settings, installed: Sequence[Installed] | None = None
) -> EnginePlan:
    """Plan as mmd.toml says, or by mmd's own rules if it says nothing of the model. Raises StorageFailed.

    `installed` are the installed engines, if they were found already.
    """
    table = settings.model(model.id)
    try:
        found = installed_engines(settings) if installed is None else installed
        engine = engine_for(model, found, table.engine)
        if engine is None:
            return EnginePlan(None, (), on_gpu=bool(machine.gpus))
        options = ServeOptions(socket="", context=table.context, arguments=table.arguments)
        flags = engine.engine.flags(model, machine, engine, options)
    except EngineMissing as error:  # it does not work, or this version or build cannot serve the model
        _log.info("%s; %s", error.message, error.hint)
        return EnginePlan(None, (), on_gpu=bool(machine.gpus))
    refused = RefusedFlags().refused(model.id).get(engine.title, {})
    return EnginePlan(engine, without_refused(flags, model.id, refused), on_gpu=engine.engine.on_gpu(machine, engine))

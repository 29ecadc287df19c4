"""The engines, best first: a table to read, and the only place to add one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmd.engines.base import Engine
from mmd.engines.llama.engine import EMBEDDED, LLAMA_SERVER
from mmd.engines.vllm.engine import VLLM
from mmd.errors import EngineMissing, WrongUsage

if TYPE_CHECKING:
    from mmd.plan.engine import Installed
    from mmd.registry.record import Format

__all__ = ["ENGINES", "Engine", "all_engines", "engine", "for_format", "installed", "missing"]

ENGINES: tuple[Engine, ...] = (
    VLLM,
    LLAMA_SERVER,
    EMBEDDED,
)

_log = logging.getLogger(__name__)


def all_engines() -> tuple[Engine, ...]:
    """Return the table."""
    return ENGINES


def engine(name: str) -> Engine:
    """The engine of this name; WrongUsage where there is none."""
    for candidate in ENGINES:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in ENGINES)
    raise WrongUsage(f"there is no engine {name!r}", hint=f"mmd list   # the engines are: {known}")


def for_format(form: Format) -> Engine:
    """Return the first engine of the table that serves this format of model files."""
    return next(candidate for candidate in ENGINES if form in candidate.formats)


def missing(form: Format) -> EngineMissing:
    """Return the error for a model of this format if no engine that serves it is installed."""
    return for_format(form).missing()


def installed(configured: Mapping[str, str]) -> tuple[Installed, ...]:
    """What is installed here, best first; `configured` maps engine names to the places the user gave.

    An engine that is found and does not work is an error where the user asked for it or where nothing else is
    installed, and a warning otherwise.
    """
    for name in configured:
        engine(name)
    found: list[Installed] = []
    broken: list[EngineMissing] = []
    for candidate in ENGINES:
        try:
            here = candidate.find(configured.get(candidate.name))
        except EngineMissing as error:
            if candidate.name in configured:
                raise
            broken.append(error)
        else:
            found += [here] if here else []
    if broken and not found:
        raise broken[0]
    for failure in broken:
        _log.warning("%s; %s", failure.message, failure.hint)
    return tuple(found)

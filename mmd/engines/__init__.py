"""The table of engines, best first. A new engine is a folder beside this file and a line here; see `design.md`."""

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
    """Return the engine of this name. Raises WrongUsage if there is none."""
    for candidate in ENGINES:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in ENGINES)
    raise WrongUsage(f"there is no engine {name!r}", hint=f"mmd engine list   # the engines are: {known}")


def for_format(form: Format) -> Engine:
    """Return the first engine of the table that serves this format of model files."""
    return next(candidate for candidate in ENGINES if form in candidate.formats)


def missing(form: Format) -> EngineMissing:
    """Return the error for a model of this format if no engine that serves it is installed."""
    return for_format(form).missing()


def installed(configured: Mapping[str, str]) -> tuple[Installed, ...]:
    """Return the installed engines, best first; `configured` maps names of engines to places from mmd.toml.

    An engine that does not work is an error if it is configured or if no other is installed, else a warning. Raises
    EngineMissing, and WrongUsage for an unknown name.
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

"""What the API and `--json` show of a setup."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from mmd.control.models.setups import Setup, as_written, setup_named
from mmd.control.state.residencies import StatusWord, status_word
from mmd.errors import MmdError
from mmd.plan.boot import Startup
from mmd.plan.residency import Pair, residency
from mmd.quantities import GIB
from mmd.registry.record import Model
from mmd.settings import Settings

_NOT_LOADED = Pair()
_FURTHEST_FIRST: tuple[StatusWord, ...] = ("failed", "stranded", "starting", "absent", "sleeping", "resident")


@dataclass(frozen=True, slots=True)
class SetupInfo:
    """A setup: a named set of models that are resident together. `vram` is the size of their weights in GiB.

    `status` is "resident" if all of them are, and else that of the model that is furthest from it. `problem` says why
    the setup cannot be activated; "" if it can.
    """

    id: str
    aliases: tuple[str, ...]  # always empty: it is listed beside models, which have some
    type: Literal["setup"]
    models: tuple[str, ...]
    note: str
    expose: tuple[str, ...]
    vram: float
    vram_bytes: int
    status: StatusWord
    startup: Startup
    problem: str


def setup_infos(models: Mapping[str, Model], settings: Settings, pairs: Mapping[str, Pair]) -> list[SetupInfo]:
    """Return all setups in the order of mmd.toml."""
    return [_listed(name, models, settings, pairs) for name in settings.setups]


def setup_info(setup: Setup, models: Mapping[str, Model], pairs: Mapping[str, Pair], problem: str = "") -> SetupInfo:
    weights_bytes = sum(models[one].facts.weights_bytes for one in setup.models if one in models)
    return SetupInfo(
        id=setup.name,
        aliases=(),
        type="setup",
        models=setup.models,
        note=setup.note,
        expose=setup.expose,
        vram=round(weights_bytes / GIB, 2),
        vram_bytes=weights_bytes,
        status=_status({status_word(one, residency(pairs.get(one, _NOT_LOADED)), None) for one in setup.models}),
        startup=setup.startup,
        problem=problem,
    )


def _listed(name: str, models: Mapping[str, Model], settings: Settings, pairs: Mapping[str, Pair]) -> SetupInfo:
    problem = ""
    try:
        setup = setup_named(name, models, settings)
    except MmdError as error:
        setup, problem = None, error.message
    return setup_info(setup or as_written(name, settings.setups[name]), models, pairs, problem)


def _status(words: Collection[StatusWord]) -> StatusWord:
    return next(word for word in _FURTHEST_FIRST if word in words)

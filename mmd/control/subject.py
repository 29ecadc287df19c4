"""What an estimate is asked about: a registered model, files that are here, or a repository of the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from mmd.control.aliases import id_for
from mmd.errors import NoSuchModel, WrongUsage
from mmd.machine import Machine
from mmd.plan.suggestions import Candidate
from mmd.registry.detect import Found, examine
from mmd.registry.record import Model
from mmd.registry.store import Registry, require_files
from mmd.settings import Settings


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` as it is registered, or as it would be: its id is what was asked for then."""

    name: str  # as it was asked for, and the file where a repository holds several
    model: Model
    candidates: tuple[Candidate, ...] = ()  # other quantisations of it in the same repository
    why: str = ""  # it was taken, where there were several
    elsewhere: Callable[[], tuple[Candidate, ...]] = tuple  # asks the hub for other repositories' quantisations of it


def subject(asked: str, machine: Machine, settings: Settings, file: str | None = None) -> Subject:
    """Of an id or another name of a model, a path, or OWNER/NAME[:FILE]; a path goes before a repository. Where that
    holds several models and none is named, it is the one that suits the machine.

    Raises NoSuchModel, and what `detect.examine` and `hub.headers` raise.
    """
    if file is None and (here := _registered(asked)):
        return Subject(here.id, here)
    # Unlike Path's these two take any text: the name of a user that there is not, one that is too long.
    path = os.path.expanduser(asked)  # noqa: PTH111
    if os.path.exists(path) or asked.startswith(("/", "./", "../", "~")):  # noqa: PTH110
        return Subject(asked, unregistered(asked, examine(Path(path)), source="file"))
    repository, _, named = asked.partition(":")
    if repository.count("/") != 1:
        raise NoSuchModel(
            f"{asked!r} is no registered model, no file here, and no OWNER/NAME of a repository",
            hint=f"mmd search {quote(asked)}   # on the hub; those that are registered: mmd list",
        )
    if named and file:
        raise WrongUsage(
            f"two files are named: {named} and {file}", hint=f"mmd estimate {quote(repository)} --file {quote(file)}"
        )
    from mmd.control.subject_on_hub import on_the_hub

    return on_the_hub(repository, named or file, machine, settings)


def _registered(asked: str) -> Model | None:
    """As the files are now, where the registry does not have what newer versions read from them."""
    try:
        model = Registry().get(id_for(asked))
    except NoSuchModel:
        return None
    require_files(model)
    if model.facts.anatomy is None:
        return replace(model, facts=examine(Path(model.path)).facts)
    return model


def unregistered(name: str, found: Found, *, source: str, licence: str = "") -> Model:
    return Model(
        id=name,
        path=found.path,
        files=found.files,
        projector=found.projector,
        source=source,
        added="",
        licence=licence,
        facts=found.facts,
    )

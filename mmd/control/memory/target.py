"""The target of an estimate: a registered model, local files, or a repository of the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from mmd.control.models.aliases import id_for
from mmd.errors import NoSuchModel, WrongUsage
from mmd.machine import Machine
from mmd.plan.suggestions import Candidate
from mmd.registry.detect import DetectedModel, examine
from mmd.registry.record import Model
from mmd.registry.store import Registry, require_files
from mmd.settings import Settings

# The hub's client takes a tenth of a second to import.
if TYPE_CHECKING:
    from mmd.registry.hub.api import Repository
    from mmd.registry.hub.files import Selection


@dataclass(frozen=True, slots=True)
class EstimateTarget:
    """A model as it is registered, or as it would be; then its id is the name that was given."""

    name: str  # as given, with the file if a repository has several
    model: Model
    candidates: tuple[Candidate, ...] = ()  # other quantisations in the same repository
    why: str = ""  # it was chosen, if there were several
    alternatives: Callable[[], tuple[Candidate, ...]] = tuple  # asks the hub for quantisations in other repositories


def estimate_target(asked: str, machine: Machine, settings: Settings, file: str | None = None) -> EstimateTarget:
    """Find the target by an id or alias, a path, or OWNER/NAME[:FILE]; a path takes precedence over a repository.

    Of several models in a repository it is the one that suits the machine, unless one is named.

    Raises NoSuchModel, and what `detect.examine` and `hub.headers` raise.
    """
    if file is None and (here := _registered(asked)):
        return EstimateTarget(here.id, here)
    # Unlike Path's methods these two accept any text: a user that does not exist, a name that is too long.
    path = os.path.expanduser(asked)  # noqa: PTH111
    if os.path.exists(path) or asked.startswith(("/", "./", "../", "~")):  # noqa: PTH110
        return EstimateTarget(asked, unregistered(asked, examine(Path(path)), source="file"))
    repository, _, named = asked.partition(":")
    if repository.count("/") != 1:
        raise NoSuchModel(
            f"{asked!r} is not a registered model, a file, or the OWNER/NAME of a repository",
            hint=f"mmd search {quote(asked)}   # searches the hub; registered models: mmd list",
        )
    if named and file:
        raise WrongUsage(
            f"two files are named: {named} and {file}", hint=f"mmd estimate {quote(repository)} --file {quote(file)}"
        )
    return _on_the_hub(repository, named or file, machine, settings)


def _registered(asked: str) -> Model | None:
    """Return the registered model; with facts from its files if the registry lacks what newer versions read."""
    try:
        model = Registry().get(id_for(asked))
    except NoSuchModel:
        return None
    require_files(model)
    if not model.facts.is_current:
        return replace(model, facts=examine(Path(model.path)).facts)
    return model


def unregistered(name: str, found: DetectedModel, *, source: str, licence: str = "") -> Model:
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


def _on_the_hub(name: str, file: str | None, machine: Machine, settings: Settings) -> EstimateTarget:
    """Find the target by the headers of its files. Raises what looking and `headers.examine_remote` raise."""
    from mmd.control.models.search import alternatives, choose_for
    from mmd.registry.hub import headers, register

    known = register.resolve(name)
    repository = known.repository
    choice = choose_for(known, file, machine, settings)
    found = headers.examine_remote(repository, choice.selection)
    model = unregistered(
        repository.id, found, source=f"hf:{repository.id}@{repository.commit}", licence=repository.licence
    )
    return EstimateTarget(
        name=f"{repository.id}:{choice.selection.file}",
        model=model,
        candidates=_beside(repository, choice.selection),
        why=choice.why,
        alternatives=partial(alternatives, repository, machine),
    )


def _beside(repository: Repository, chosen: Selection) -> tuple[Candidate, ...]:
    """Return the other quantisations in the same repository."""
    from mmd.registry.hub.files import selections_in
    from mmd.registry.hub.listing import offer_of

    offers = map(offer_of, selections_in(repository.files))
    return tuple(
        Candidate(
            offer.file,
            offer.weights_bytes,
            same_repository=True,
            command=f"mmd pull {quote(f'{repository.id}:{offer.file}')}",
        )
        for offer in offers
        if offer.file != chosen.file and offer.format is offer_of(chosen).format
    )

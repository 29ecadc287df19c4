"""What an estimate is asked about: a registered model, files that are here, or a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from mmd.control.aliases import id_for
from mmd.errors import NoSuchModel, WrongUsage
from mmd.plan.suggestions import Candidate
from mmd.registry.detect import Found, examine
from mmd.registry.record import Model
from mmd.registry.store import Registry


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` as it is registered, or as it would be: its id is what was asked for then."""

    name: str  # as it was asked for, and the file where a repository holds several
    model: Model
    candidates: tuple[Candidate, ...] = ()  # other quantisations of it in the same repository


def subject(asked: str, file: str | None = None) -> Subject:
    """Of an id or another name of a model, a path, or OWNER/NAME[:FILE]; a path goes before a repository.

    Raises NoSuchModel, and what `detect.examine` and `hub.headers` raise.
    """
    if file is None and (here := _registered(asked)):
        return Subject(here.id, here)
    path = Path(asked)
    if path.exists() or asked.startswith(("/", "./", "../", "~")):
        return Subject(asked, _model(asked, examine(path.expanduser()), source="file"))
    repository, _, named = asked.partition(":")
    if repository.count("/") != 1:
        raise NoSuchModel(
            f"{asked!r} is no registered model, no file here, and no OWNER/NAME of a repository",
            hint=f"mmd search {quote(asked)}   # or see which are registered: mmd list",
        )
    if named and file:
        raise WrongUsage(
            f"two files are named: {named} and {file}", hint=f"mmd estimate {quote(repository)} --file {quote(file)}"
        )
    return _on_the_hub(repository, named or file)


def _registered(asked: str) -> Model | None:
    """As the files are now, where the registry does not have what newer versions read from them."""
    try:
        model = Registry().get(id_for(asked))
    except NoSuchModel:
        return None
    if model.facts.anatomy is None:
        return replace(model, facts=examine(Path(model.path)).facts)
    return model


def _on_the_hub(name: str, file: str | None) -> Subject:
    from mmd.registry.hub import api, headers
    from mmd.registry.hub.files import select, selections_in

    repository = api.look(name)
    chosen = select(repository.id, repository.files, file)
    found = headers.look_into(repository, chosen)
    source = f"hf:{repository.id}@{repository.commit}"
    others = tuple(
        Candidate(other.file, other.total_bytes, same_repository=True, command=f"mmd pull {repository.id}:{other.file}")
        for other in selections_in(repository.files)
        if other.file != chosen.file and other.file.endswith(Path(chosen.file).suffix)
    )
    return Subject(f"{repository.id}:{chosen.file}", _model(repository.id, found, source=source), others)


def _model(name: str, found: Found, *, source: str) -> Model:
    return Model(
        id=name,
        path=found.path,
        files=found.files,
        projector=found.projector,
        source=source,
        added="",
        facts=found.facts,
    )

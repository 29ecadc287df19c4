"""A model of the hub, from its name to a record in the registry; without the hub where the cache has all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile, FileNeeded, HubUnavailable, NotRunnable, WrongUsage
from mmd.registry import ids, manifest
from mmd.registry.hub import api
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.cache import blob_of, cached_path, look_in_cache, model_path, write_ref
from mmd.registry.hub.download import download
from mmd.registry.hub.files import HubFile, Selection, select, selections_in
from mmd.registry.hub.names import stays_inside
from mmd.registry.hub.progress import Tell
from mmd.registry.record import Model
from mmd.registry.store import Registry

MAIN = "main"


@dataclass(frozen=True, slots=True)
class RepoSnapshot:
    """A repository as the hub describes it, or as far as it is in the cache where the hub does not answer."""

    repository: Repository
    revision: str  # the branch, tag or commit that was asked for
    absence: HubUnavailable | None = None  # why the hub was not asked


def look(name: str, revision: str | None = None) -> RepoSnapshot:
    """Raises what mmd.registry.hub.api.look raises."""
    revision = revision or MAIN
    if not stays_inside(revision):  # it becomes a part of an address and of a path
        raise WrongUsage(f"{revision!r} is no branch, tag or commit", hint=f"mmd pull {quote(name)}   # takes {MAIN}")
    try:
        return RepoSnapshot(api.look(name, revision), revision)
    except HubUnavailable as absence:
        with hub_errors(name):
            repository = look_in_cache(name, revision)
        if repository is None:
            raise
        return RepoSnapshot(repository, revision, absence)


def choose(known: RepoSnapshot, wanted: str | None) -> Selection:
    """The model that `wanted` is a file of, or the only one with this word in its name, Q4_K_M say, or the only one.

    Raises what files.select raises.
    """
    repository = known.repository
    file = _file_called(repository, wanted) if wanted is not None else None
    try:
        return select(repository.id, repository.files, file)
    except (FileNeeded, NotRunnable) as error:
        if known.absence is not None and (file is not None or isinstance(error, NotRunnable)):
            raise _incomplete(known.absence, repository.id, error.message) from error
        raise


def _file_called(repository: Repository, word: str) -> str:
    names = {selection.file for selection in selections_in(repository.files)}
    whole_word = re.compile(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9_])", re.IGNORECASE)
    found = [name for name in names if whole_word.search(name)]
    return found[0] if len(found) == 1 and word not in names else word


def obtain(known: RepoSnapshot, selection: Selection, tell: Tell, *, id: str | None = None) -> Model:
    """Download what is missing of it and register it; raises what these two raise, and WrongUsage.

    Where a branch has moved on and the files of a model have not changed, it stays the model that it was.
    """
    repository = known.repository
    if id is not None:
        _require_free(id, repository, selection)
    try:
        downloaded = download(repository, selection, tell)
        if known.absence is None:
            with hub_errors(repository.id):
                write_ref(repository, known.revision)
        path = _registered_path(repository, selection) or downloaded.path
        model = Registry().add(
            path, id=id, source=f"hf:{repository.id}@{repository.commit}", licence=repository.licence
        )
    except (BadModelFile, NotRunnable) as error:
        if known.absence is not None:  # of a part that is missing, nothing says that it is one
            raise _incomplete(known.absence, repository.id, error.message) from error
        raise
    manifest.write(model, downloaded.sha256)
    return model


def _registered_path(repository: Repository, selection: Selection) -> Path | None:
    """Where these very files are registered already, be it in the snapshot of another commit."""
    for model in Registry().all():
        then = _when_pulled(model, repository, selection)
        if then is not None and all(_is_same(file, then, repository) for file in selection.files):
            return Path(model.path)
    return None


def _when_pulled(model: Model, repository: Repository, selection: Selection) -> Repository | None:
    """The repository at the commit of which `model` is this selection; None where it is another model."""
    then = replace(repository, commit=model.source.removeprefix(f"hf:{repository.id}@"))
    return then if model.path == str(model_path(then, selection)) else None


def _is_same(file: HubFile, then: Repository, now: Repository) -> bool:
    one, other = cached_path(then, file), cached_path(now, file)
    return one is not None and other is not None and one.samefile(other)


def _incomplete(absence: HubUnavailable, repository: str, why: str) -> HubUnavailable:
    return HubUnavailable(f"{absence.message}; and the cache has not all of {repository}: {why}", hint=absence.hint)


def _require_free(id: str, repository: Repository, selection: Selection) -> None:
    """Before the download rather than after it."""
    ids.require_valid(id)
    holder = Registry().load().get(id)
    if holder is not None and not _has_weights(holder, repository, selection):
        raise WrongUsage(
            f"the id {id!r} belongs to {holder.path}",
            hint=f"mmd remove {id}   # choose another --id, or free it",
        )


def _has_weights(model: Model, repository: Repository, selection: Selection) -> bool:
    then = _when_pulled(model, repository, selection)
    if then is None or then.commit == repository.commit:
        return then is not None
    large = [(blob_of(repository.id, file), cached_path(then, file)) for file in selection.files]
    return all(path is not None and blob.exists() and path.samefile(blob) for blob, path in large if blob is not None)

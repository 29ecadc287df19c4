"""Register a model from the hub: find its files, download them and add its record. Works offline if all are cached."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile, FileNeeded, HubUnavailable, NotRunnable, WrongUsage
from mmd.registry import ids, manifest
from mmd.registry.hub import api
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.cache import blob_of, cached_path, cached_repository, model_path, write_ref
from mmd.registry.hub.download import download
from mmd.registry.hub.files import HubFile, Selection, select, selections_in
from mmd.registry.hub.names import stays_inside
from mmd.registry.hub.progress import OnProgress
from mmd.registry.record import Model
from mmd.registry.store import Registry

MAIN = "main"


@dataclass(frozen=True, slots=True)
class RepoSnapshot:
    """A repository as the hub describes it; if the hub does not answer, as far as it is in the cache."""

    repository: Repository
    revision: str  # the requested branch, tag or commit
    offline_error: HubUnavailable | None = None  # why the hub could not be asked


def resolve(name: str, revision: str | None = None) -> RepoSnapshot:
    """Return the repository at a revision. Raises what `api.read_repository` raises."""
    revision = revision or MAIN
    if not stays_inside(revision):  # it becomes part of a URL and of a path
        raise WrongUsage(f"{revision!r} is not a branch, tag or commit", hint=f"mmd pull {quote(name)}   # uses {MAIN}")
    try:
        return RepoSnapshot(api.read_repository(name, revision), revision)
    except HubUnavailable as offline_error:
        with hub_errors(name):
            repository = cached_repository(name, revision)
        if repository is None:
            raise
        return RepoSnapshot(repository, revision, offline_error)


def choose(snapshot: RepoSnapshot, wanted: str | None) -> Selection:
    """Return the model whose file or only matching name `wanted` is ("Q4_K_M"); without it, the only model.

    Raises what files.select raises.
    """
    repository = snapshot.repository
    file = _file_called(repository, wanted) if wanted is not None else None
    try:
        return select(repository.id, repository.files, file)
    except (FileNeeded, NotRunnable) as error:
        if snapshot.offline_error is not None and (file is not None or isinstance(error, NotRunnable)):
            raise _incomplete(snapshot.offline_error, repository.id, error.message) from error
        raise


def _file_called(repository: Repository, word: str) -> str:
    names = {selection.file for selection in selections_in(repository.files)}
    whole_word = re.compile(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9_])", re.IGNORECASE)
    found = [name for name in names if whole_word.search(name)]
    return found[0] if len(found) == 1 and word not in names else word


def download_and_register(
    snapshot: RepoSnapshot, selection: Selection, on_progress: OnProgress, *, id: str | None = None
) -> Model:
    """Download what is missing of a model and register it. Raises what these two raise, and WrongUsage.

    If a branch has moved on but the files of the model have not changed, the registered model stays.
    """
    repository = snapshot.repository
    if id is not None:
        _require_free_id(id, repository, selection)
    try:
        downloaded = download(repository, selection, on_progress)
        if snapshot.offline_error is None:
            with hub_errors(repository.id):
                write_ref(repository, snapshot.revision)
        path = _registered_path(repository, selection) or downloaded.path
        model = Registry().add(
            path, id=id, source=f"hf:{repository.id}@{repository.commit}", licence=repository.licence
        )
    except (BadModelFile, NotRunnable) as error:
        if snapshot.offline_error is not None:  # the cause may be a part missing in the cache
            raise _incomplete(snapshot.offline_error, repository.id, error.message) from error
        raise
    manifest.write(model, downloaded.sha256)
    return model


def _registered_path(repository: Repository, selection: Selection) -> Path | None:
    """Return the path under which these files are registered already, perhaps in the snapshot of another commit."""
    for model in Registry().all():
        then = _when_pulled(model, repository, selection)
        if then is not None and all(_is_same(file, then, repository) for file in selection.files):
            return Path(model.path)
    return None


def _when_pulled(model: Model, repository: Repository, selection: Selection) -> Repository | None:
    """Return the repository at the commit that `model` was pulled from; None if it is not this selection."""
    then = replace(repository, commit=model.source.removeprefix(f"hf:{repository.id}@"))
    return then if model.path == str(model_path(then, selection)) else None


def _is_same(file: HubFile, then: Repository, now: Repository) -> bool:
    one, other = cached_path(then, file), cached_path(now, file)
    return one is not None and other is not None and one.samefile(other)


def _incomplete(offline_error: HubUnavailable, repository: str, why: str) -> HubUnavailable:
    return HubUnavailable(
        f"{offline_error.message}; and the cache does not have all of {repository}: {why}", hint=offline_error.hint
    )


def _require_free_id(id: str, repository: Repository, selection: Selection) -> None:
    """Check the id before the download rather than after it."""
    ids.require_valid(id)
    taken_by = Registry().load().get(id)
    if taken_by is not None and not _has_weights(taken_by, repository, selection):
        raise WrongUsage(
            f"the id {id!r} is taken by {taken_by.path}",
            hint=f"mmd remove {id}   # frees the id; or use another --id",
        )


def _has_weights(model: Model, repository: Repository, selection: Selection) -> bool:
    then = _when_pulled(model, repository, selection)
    if then is None or then.commit == repository.commit:
        return then is not None
    large = [(blob_of(repository.id, file), cached_path(then, file)) for file in selection.files]
    return all(path is not None and blob.exists() and path.samefile(blob) for blob, path in large if blob is not None)

"""Delete the files of a model: which are deleted, which are kept and why, and how many bytes that frees."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmd import paths
from mmd.errors import StorageFailed
from mmd.registry.cache_disposal import CacheDisposal
from mmd.registry.cache_link import cache_link
from mmd.registry.companions import ARCHIVE_RECORD, files_of, may_be_users_own
from mmd.registry.record import Format, Model
from mmd.registry.shared_owners import owner_of


@dataclass(frozen=True, slots=True)
class Deleted:
    """A file to delete. `frees_bytes` is 0 if its content stays on the disk; `note` says why."""

    path: str
    frees_bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Retained:
    """A file that is kept, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Disposal:
    """A plan for deleting the files of one model; `carry_out` does it."""

    deleted: tuple[Deleted, ...]
    retained: tuple[Retained, ...]
    folders: tuple[Path, ...]  # of the model itself, innermost first; deleted if empty
    cache: CacheDisposal | None

    @property
    def frees_bytes(self) -> int:
        return sum(one.frees_bytes for one in self.deleted)

    def require_within(self, shown: Disposal) -> None:
        """Raise StorageFailed if this plan deletes a file that the plan shown to the user did not name."""
        more = {one.path for one in self.deleted} - {one.path for one in shown.deleted}
        if more:
            path = min(more)
            raise StorageFailed(f"nothing was deleted: {path} was added meanwhile", hint=f"ls -l {quote(path)}")

    def carry_out(self) -> None:
        """Delete the files and the empty folders. Raises StorageFailed, naming what could not be deleted."""
        try:
            if self.cache is not None:
                self.cache.carry_out()
            in_cache = self.cache.paths if self.cache is not None else frozenset()
            for one in self.deleted:
                if one.path not in in_cache:
                    Path(one.path).unlink(missing_ok=True)
            for folder in self.folders:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise _failed(str(error.filename), error.strerror or str(error)) from error
        # huggingface_hub logs files that it may not delete, and raises nothing.
        for one in self.deleted:
            if os.path.lexists(one.path):
                raise _failed(one.path, "it still exists")


def disposal_of(model: Model, others: Iterable[Model]) -> Disposal:
    """Plan the deletion of a model's files; `others` are the models that stay registered. Raises StorageFailed."""
    shared = {os.path.realpath(path): other.id for other in others for path in files_of(other)}
    deleted: list[Deleted] = []
    retained: list[Retained] = []
    in_cache: list[str] = []
    for path in filter(_is_there, files_of(model)):
        if (reason := _why_it_stays(model, path, shared)) is not None:
            retained.append(Retained(path, reason))
        elif cache_link(path) is not None:
            in_cache.append(path)
        else:
            deleted.append(_deleted(path))
    cache = CacheDisposal.of(in_cache) if in_cache else None
    if cache is not None:
        deleted += [Deleted(path, *cache.freed(path)) for path in cache.found]
        retained += [Retained(path, "huggingface_hub reports its cache as damaged here") for path in cache.strange]
    return Disposal(tuple(deleted), tuple(retained), _own_folders(model), cache)


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # not the same as missing: that would unregister a model whose files exist
        raise StorageFailed(
            f"{path} cannot be read: {error.strerror}", hint=f"namei -l {quote(path)}   # owners of the folders"
        ) from error
    return True


def _why_it_stays(model: Model, path: str, shared: Mapping[str, str]) -> str | None:
    """Return why a file must be kept, None if it may be deleted."""
    if (other := shared.get(os.path.realpath(path))) is not None:
        return f"{other} needs it"
    if not _is_of_its_kind(model, path):
        return "models.json names it, but it is not a file of this model"
    if path == model.projector and _has_neighbours(model):
        return "another model beside it may need it"
    if cache_link(path) is not None:
        return None
    if Path(path).is_symlink() or Path(model.path).is_symlink():
        return f"it is a symbolic link to {os.path.realpath(path)}, which others may use"
    return owner_of(Path(path)) or _whose_it_may_be(model, path)


def _has_neighbours(model: Model) -> bool:
    """True if the folder has other GGUF files that are not registered with this model."""
    ggufs = (path for path in Path(model.path).parent.iterdir() if path.name.lower().endswith(".gguf"))
    return bool({str(path) for path in ggufs if "mmproj" not in path.name.lower()} - set(model.files))


def _is_of_its_kind(model: Model, path: str) -> bool:
    """True if the file is in the model's folder and named like weights, or is the path that the model is registered by.

    The registry is a text file that anyone may edit: a name in it is not proof enough to delete a file.
    """
    if model.facts.format is Format.SAFETENSORS:
        is_inside = Path(model.path) in Path(os.path.normpath(path)).parents
        return is_inside and (path not in model.files or path.endswith(".safetensors"))
    is_beside = Path(os.path.normpath(path)).parent == Path(model.path).parent
    return is_beside and (path == model.path or path.lower().endswith(".gguf"))


def _whose_it_may_be(model: Model, path: str) -> str | None:
    if paths.models_dir() in Path(path).parents:
        return None  # mmd wrote all of it
    archive = Path(path).parent
    if (archive / ARCHIVE_RECORD).is_file():
        return f"it is in an archive: rm -r {quote(str(archive))}"
    return "it may be your own file: not every model has one" if may_be_users_own(model, path) else None


def _deleted(path: str) -> Deleted:
    status = os.stat(path)  # noqa: PTH116  a string, as the record has it
    if status.st_nlink > 1:
        return Deleted(path, 0, "a hard link to it remains, so its space is not freed")
    return Deleted(path, status.st_blocks * 512)


def _own_folders(model: Model) -> tuple[Path, ...]:
    """Return the folders of this model alone; never one of the cache, which huggingface_hub manages."""
    if any(cache_link(path) for path in model.files):
        return ()
    if Path(model.path).is_symlink():
        return ()
    if model.facts.format is Format.SAFETENSORS:
        folder = Path(model.path)
        below = sorted({Path(path).parent for path in files_of(model)} - {folder}, reverse=True)
        return (*below, folder)
    folder = Path(model.path).parent
    return (folder,) if folder.parent == paths.models_dir() else ()


def _failed(path: str, why: str) -> StorageFailed:
    return StorageFailed(f"{path} could not be deleted: {why}", hint=f"ls -ld {quote(os.path.dirname(path))}")  # noqa: PTH120

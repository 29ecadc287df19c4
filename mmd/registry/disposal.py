"""Deleting the files of a model: what goes, what stays because others share it, and what that frees."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmd import paths
from mmd.errors import StorageFailed
from mmd.registry.belongings import files_of
from mmd.registry.cache_disposal import CacheDisposal
from mmd.registry.cache_link import cache_link
from mmd.registry.record import Format, Model


@dataclass(frozen=True, slots=True)
class Going:
    """A file that is deleted. `frees_bytes` is 0 where its content stays on the disk, and `note` says why."""

    path: str
    frees_bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Staying:
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Disposal:
    """What deleting the files of one model means. Nothing has happened yet."""

    going: tuple[Going, ...]
    staying: tuple[Staying, ...]
    folders: tuple[Path, ...]  # of the model itself, innermost first: they go where nothing is left in them
    cache: CacheDisposal | None

    @property
    def frees_bytes(self) -> int:
        return sum(one.frees_bytes for one in self.going)

    def carry_out(self) -> None:
        """Raises StorageFailed with what could not be deleted."""
        try:
            if self.cache is not None:
                self.cache.carry_out()
            in_cache = self.cache.paths if self.cache is not None else frozenset()
            for one in self.going:
                if one.path not in in_cache:
                    Path(one.path).unlink(missing_ok=True)
            for folder in self.folders:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise _failed(str(error.filename), error.strerror or str(error)) from error
        # huggingface_hub only logs what it is refused.
        for one in self.going:
            if os.path.lexists(one.path):
                raise _failed(one.path, "it is still there")


def disposal_of(model: Model, others: Iterable[Model]) -> Disposal:
    """What of a model's files may go; `others` are the models that stay registered."""
    shared = {os.path.realpath(path): other.id for other in others for path in files_of(other)}
    going: list[Going] = []
    staying: list[Staying] = []
    in_cache: list[str] = []
    for path in files_of(model):
        real = os.path.realpath(path)
        if not os.path.lexists(path):
            continue
        if real in shared:
            staying.append(Staying(path, f"{shared[real]} needs it"))
        elif path == model.projector and _has_neighbours(model):
            staying.append(Staying(path, "another model beside it may need it"))
        elif cache_link(path) is not None:
            in_cache.append(path)
        elif (reason := _not_its_own(Path(path))) is not None:
            staying.append(Staying(path, reason))
        else:
            going.append(_going(path))
    cache = CacheDisposal.of(in_cache) if in_cache else None
    if cache is not None:
        going += [Going(path, *cache.freed(path)) for path in cache.found]
        staying += [Staying(path, "huggingface_hub cannot make sense of its cache here") for path in cache.strange]
    return Disposal(tuple(going), tuple(staying), _own_folders(model), cache)


def _has_neighbours(model: Model) -> bool:
    """Whether other GGUFs are in the folder, of which nobody has told mmd."""
    beside = {str(path) for path in Path(model.path).parent.glob("*.gguf") if "mmproj" not in path.name.lower()}
    return bool(beside - set(model.files))


def _not_its_own(file: Path) -> str | None:
    if file.is_symlink():
        return f"it is a link to {os.path.realpath(file)}, which may be another's"
    if file.name.startswith("sha256-") and (file.parent.parent / "manifests").is_dir():
        return "it is in Ollama's store: ollama rm"
    return None


def _going(path: str) -> Going:
    status = os.stat(path)  # noqa: PTH116  a string, as the record has it
    if status.st_nlink > 1:
        return Going(path, 0, "another name of it stays (a hard link), and with it the space")
    return Going(path, status.st_blocks * 512)


def _own_folders(model: Model) -> tuple[Path, ...]:
    """Folders that are about this model alone; never one of the cache, which huggingface_hub looks after."""
    if any(cache_link(path) for path in model.files):
        return ()
    if model.facts.format is Format.SAFETENSORS:
        folder = Path(model.path)
        below = sorted({Path(path).parent for path in files_of(model)} - {folder}, reverse=True)
        return (*below, folder)
    folder = Path(model.path).parent
    return (folder,) if folder.parent == paths.models_dir() else ()


def _failed(path: str, why: str) -> StorageFailed:
    return StorageFailed(f"{path} could not be deleted: {why}", hint=f"ls -ld {quote(os.path.dirname(path))}")  # noqa: PTH120

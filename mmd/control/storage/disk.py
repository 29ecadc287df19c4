"""Disk usage: models, remains of downloads, engines, and mmd's own cache."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmd import paths
from mmd.control.state.swap_events import recent
from mmd.registry.cache_link import cache_folder, cache_link
from mmd.registry.companions import files_of
from mmd.registry.copying import UNFINISHED
from mmd.registry.disk_blocks import Identity, Stored, below, by_identity, stored, total_bytes
from mmd.registry.record import Model


@dataclass(frozen=True, slots=True)
class ModelUse:
    """The usage of one model. `shared_bytes` would stay without it: another model or another name has them, too."""

    id: str
    own_bytes: int
    shared_bytes: int
    where: str  # "Hugging Face cache" or "folder"
    path: str
    last_used: str | None  # when it was last loaded: ISO 8601, UTC; None if no swap is recorded
    missing_files: int


@dataclass(frozen=True, slots=True)
class OtherUse:
    what: str
    size_bytes: int
    path: str
    free_with: str  # a command to paste


@dataclass(frozen=True, slots=True)
class FileSystem:
    path: str  # its mount point
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DiskUse:
    models: tuple[ModelUse, ...]  # the largest first
    others: tuple[OtherUse, ...]
    total_bytes: int
    file_systems: tuple[FileSystem, ...]


def disk_use(models: Sequence[Model]) -> DiskUse:
    """Compute the usage from the metadata of files; read no file."""
    contents = {model.id: _contents(model) for model in models}
    of_models = by_identity(one for held in contents.values() for one in held)
    in_cache = dict(below(cache_folder()))
    others = tuple(one for one in (*_of_cache(in_cache, of_models), *_of_mmd(of_models)) if one.size_bytes)
    return DiskUse(
        models=_models(models, contents),
        others=others,
        total_bytes=sum(of_models.values()) + sum(one.size_bytes for one in others),
        file_systems=_file_systems([Path(model.path) for model in models]),
    )


def _contents(model: Model) -> tuple[Stored, ...]:
    held = (stored(path) for path in files_of(model))
    return tuple({one.identity: one for one in held if one is not None}.values())


def _models(models: Sequence[Model], contents: Mapping[str, tuple[Stored, ...]]) -> tuple[ModelUse, ...]:
    holders = Counter(one.identity for held in contents.values() for one in held)
    last_used = {event.model: event.at for event in recent() if event.outcome == "resident"}
    uses = [_model_use(model, contents[model.id], holders, last_used.get(model.id)) for model in models]
    return tuple(sorted(uses, key=lambda use: use.own_bytes + use.shared_bytes, reverse=True))


def _model_use(
    model: Model, held: Iterable[Stored], holders: Mapping[Identity, int], last_used: str | None
) -> ModelUse:
    own_bytes = shared_bytes = 0
    for one in held:
        if one.names > 1 or holders[one.identity] > 1:
            shared_bytes += one.size_bytes
        else:
            own_bytes += one.size_bytes
    return ModelUse(
        model.id,
        own_bytes,
        shared_bytes,
        "Hugging Face cache" if cache_link(model.files[0]) else "folder",
        model.path,
        last_used,
        sum(stored(path) is None for path in files_of(model)),
    )


def _of_cache(in_cache: Mapping[str, Stored], of_models: Mapping[Identity, int]) -> Iterator[OtherUse]:
    cache = cache_folder()
    blobs = f"{quote(str(cache))}/*/blobs"
    partial = {path: one for path, one in in_cache.items() if path.endswith(".incomplete")}
    damaged = {path: one for path, one in in_cache.items() if path.endswith(".damaged")}
    rest = [
        one
        for path, one in in_cache.items()
        if one.identity not in of_models and path not in partial and path not in damaged
    ]
    yield OtherUse(
        f"unfinished downloads ({len(partial)})",
        total_bytes(partial.values()),
        str(cache),
        f"rm {blobs}/*.incomplete   # while no download is running",
    )
    yield OtherUse(
        f"damaged downloads ({len(damaged)})",
        total_bytes(damaged.values()),
        str(cache),
        f"rm {blobs}/*.damaged",
    )
    yield OtherUse(
        "the rest of the Hugging Face cache",
        total_bytes(rest),
        str(cache),
        "mmd add   # registers what runs here; then: hf cache ls",
    )


def _of_mmd(of_models: Mapping[Identity, int]) -> Iterator[OtherUse]:
    engines, cache, restored = paths.engines_dir(), paths.cache_dir(), paths.models_dir()
    yield OtherUse("engines", _below_bytes(engines), str(engines), "mmd engine list   # then: mmd engine remove")
    yield OtherUse("mmd's cache", _below_bytes(cache), str(cache), f"rm -r {quote(str(cache))}   # mmd fills it again")
    unfinished = sorted(restored.glob(f".*{UNFINISHED}"))
    yield OtherUse(
        f"unfinished restores ({len(unfinished)})",
        sum(map(_below_bytes, unfinished)),
        str(restored),
        f"rm -r {quote(str(restored))}/.*{UNFINISHED}   # or the same mmd restore, which continues",
    )
    forgotten = [one for folder in restored.glob("[!.]*") for _, one in below(folder) if one.identity not in of_models]
    yield OtherUse(
        "restored models that are not registered",
        total_bytes(forgotten),
        str(restored),
        f"mmd add {quote(str(restored))}",
    )
    aside = [one for path, one in below(paths.data_dir()) if ".damaged" in os.path.basename(path)]  # noqa: PTH119
    yield OtherUse(
        f"damaged records kept aside ({len(aside)})",
        total_bytes(aside),
        str(paths.data_dir()),
        f"find {quote(str(paths.data_dir()))} -name '*.damaged*'   # then rm, if nothing in them is needed",
    )


def _below_bytes(folder: Path) -> int:
    return total_bytes(one for _, one in below(folder))


def _file_systems(places: Iterable[Path]) -> tuple[FileSystem, ...]:
    """Return each file system that holds files of mmd or its models once."""
    mounted = {_mount_of(place) for place in (*places, cache_folder(), paths.data_dir(), paths.cache_dir())}
    return tuple(
        FileSystem(str(mount), usage.total, usage.free)
        for mount in sorted(mounted)
        for usage in (shutil.disk_usage(mount),)
    )


def _mount_of(place: Path) -> Path:
    real = Path(os.path.realpath(place))
    return next(folder for folder in (real, *real.parents) if os.path.ismount(folder))

"""The cache of header stubs: models of which only the headers were fetched, in sparse files of their full size.

ghost/KEY/NAME/...      KEY is a hash of the files' names, sizes and contents; NAME is the repository's
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from shlex import quote
from time import time

from mmd.errors import NoSpace, StorageFailed
from mmd.paths import cache_dir, make_private
from mmd.quantities import GIB
from mmd.registry.hub.api import Repository
from mmd.registry.hub.files import Selection

_MAX_STUBS = 100
_MAX_BYTES = GIB  # on the disk; a typical stub takes 8 MB
_ABANDONED_SECONDS = 3600.0  # after this, an unfinished stub is left over from a killed process
_UNFINISHED = ".new-"


def folder_for(repository: Repository, selection: Selection) -> Path:
    """Return the folder for a model: the same one for the same content, even if the repository changes otherwise."""
    content = sha256()
    for file in selection.files:
        # For small files the hub has no hash that is valid beyond a commit.
        content.update(f"{file.name}\0{file.size_bytes}\0{file.sha256 or repository.commit}\0".encode())
    return _root() / content.hexdigest()[:32] / repository.id.rpartition("/")[2]


def mark_used(folder: Path) -> bool:
    """Return whether a stub exists, and keep it from being evicted soon."""
    try:
        os.utime(folder.parent)
    except OSError:
        return False
    return True


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which is renamed to `folder` at the end, or deleted on an error. Raises StorageFailed."""
    unfinished = folder.parent.with_name(f"{_UNFINISHED}{os.urandom(6).hex()}")
    try:
        try:
            make_private(unfinished / folder.name)
            yield unfinished / folder.name
            _put_in_place(unfinished, folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _evict()
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else StorageFailed
        raise kind(
            f"the headers of {folder.name} cannot be kept in {_root()}: {error.strerror}",
            hint=f"df -h {quote(str(cache_dir()))}   # shows the space left",
        ) from error


def _put_in_place(unfinished: Path, place: Path) -> None:
    try:
        unfinished.rename(place)
    except OSError:
        if not place.exists():  # another process made the same stub first
            raise


def delete(folder: Path) -> None:
    """Delete a stub that turned out to be damaged, by a crash for example."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _evict() -> None:
    """Delete the oldest stubs over the limits, and what killed processes left."""
    kept_bytes = 0
    for number, (used_at, path) in enumerate(sorted(_aged(), reverse=True)):
        kept_bytes += _size_bytes(path)
        is_abandoned = path.name.startswith(_UNFINISHED) and used_at < time() - _ABANDONED_SECONDS
        if is_abandoned or (number and (number >= _MAX_STUBS or kept_bytes > _MAX_BYTES)):
            shutil.rmtree(path, ignore_errors=True)


def _aged() -> Iterator[tuple[float, Path]]:
    for path in _root().iterdir():
        with suppress(FileNotFoundError):  # another process evicts, too
            yield path.stat().st_mtime, path


def _size_bytes(folder: Path) -> int:
    found = 0
    with suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            found += path.lstat().st_blocks * 512
    return found


def _root() -> Path:
    return cache_dir() / "ghost"

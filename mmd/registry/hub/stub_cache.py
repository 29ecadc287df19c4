"""Where ghosts lie: models of which only the headers were fetched, in sparse files of their full size.

ghost/KEY/NAME/...      KEY stands for what the files hold, NAME is the repository's
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

_MOST_GHOSTS = 100
_MOST_BYTES = GIB  # on the disk; a common one takes 8 MB
_ABANDONED_SECONDS = 3600.0  # what one that was cut short has left
_UNFINISHED = ".new-"


def folder_for(repository: Repository, selection: Selection) -> Path:
    """Where the files of a model belong: the same place for the same content, whatever else the repository changes."""
    content = sha256()
    for file in selection.files:
        # Of small files the hub tells no hash that holds beyond a commit.
        content.update(f"{file.name}\0{file.size_bytes}\0{file.sha256 or repository.commit}\0".encode())
    return _root() / content.hexdigest()[:32] / repository.id.rpartition("/")[2]


def is_there(folder: Path) -> bool:
    """Whether it is, and is not to be cleared away soon."""
    try:
        os.utime(folder.parent)
    except OSError:
        return False
    return True


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` at the end and is gone where that fails. Raises StorageFailed."""
    unfinished = folder.parent.with_name(f"{_UNFINISHED}{os.urandom(6).hex()}")
    try:
        try:
            make_private(unfinished / folder.name)
            yield unfinished / folder.name
            _put_in_place(unfinished, folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _clear()
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else StorageFailed
        raise kind(
            f"the headers of {folder.name} cannot be kept in {_root()}: {error.strerror}",
            hint=f"df -h {quote(str(cache_dir()))}   # see what is left",
        ) from error


def _put_in_place(unfinished: Path, place: Path) -> None:
    try:
        unfinished.rename(place)
    except OSError:
        if not place.exists():  # another of us was quicker: the same
            raise


def forget(folder: Path) -> None:
    """One that turned out to be damaged, by a crash say."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _clear() -> None:
    """Away with the oldest, where there are too many."""
    kept_bytes = 0
    for number, (used_at, path) in enumerate(sorted(_aged(), reverse=True)):
        kept_bytes += _size_bytes(path)
        is_abandoned = path.name.startswith(_UNFINISHED) and used_at < time() - _ABANDONED_SECONDS
        if is_abandoned or (number and (number >= _MOST_GHOSTS or kept_bytes > _MOST_BYTES)):
            shutil.rmtree(path, ignore_errors=True)


def _aged() -> Iterator[tuple[float, Path]]:
    for path in _root().iterdir():
        with suppress(FileNotFoundError):  # another of us clears, too
            yield path.stat().st_mtime, path


def _size_bytes(folder: Path) -> int:
    found = 0
    with suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            found += path.lstat().st_blocks * 512
    return found


def _root() -> Path:
    return cache_dir() / "ghost"

"""Disk usage of files, in blocks and not in lengths: a sparse file counts what it occupies, a hard link only once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Identity = tuple[int, int]
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's is


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of one file; `names` is the number of hard links to it."""

    identity: Identity
    size_bytes: int
    names: int


def stored(path: str | Path) -> Stored | None:
    """Return the content that a path leads to; None if that is not a regular file or does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116  strings, as the records have them
    except OSError:
        return None
    return _stored(status) if stat.S_ISREG(status.st_mode) else None


def below(folder: Path) -> Iterator[tuple[str, Stored]]:
    """Yield the regular files below a folder. Links are not followed; unreadable folders are skipped."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118  a cache has ten thousand of them
            try:
                status = os.lstat(path)
            except OSError:
                continue  # deleted meanwhile
            if stat.S_ISREG(status.st_mode):
                yield path, _stored(status)


def total_bytes(contents: Iterable[Stored]) -> int:
    """Return the sum of the sizes; each content counts once."""
    return sum(by_identity(contents).values())


def by_identity(contents: Iterable[Stored]) -> Mapping[Identity, int]:
    return {one.identity: one.size_bytes for one in contents}


def _stored(status: os.stat_result) -> Stored:
    return Stored((status.st_dev, status.st_ino), status.st_blocks * _BLOCK_BYTES, status.st_nlink)

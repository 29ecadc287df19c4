"""Copy a model's files to another folder: continue where an earlier attempt ended, then read back and compare."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile, NoSpace, StorageFailed, WrongUsage
from mmd.files import try_lock
from mmd.quantities import MIB, size_text
from mmd.registry.files import open_regular
from mmd.registry.hashing import Report, digest_while_reading, sha256_of

_SYNC_BYTES = 256 * MIB

UNFINISHED = ".mmd-incomplete"  # suffix of a folder's name until its copy is complete

HashLearned = Callable[[str, str], None]  # called with a file's name and its sha256


class Copying:
    """A copy of several files into the folder `into`.

    `sources` maps the name that a file gets below `into` to its path; `sha256` has the known hashes by the same names.
    """

    def __init__(self, sources: Mapping[str, Path], sha256: Mapping[str, str], into: Path) -> None:
        self._sources = sources
        self._sha256 = dict(sha256)
        self._into = into
        self.total_bytes = sum(_size_bytes(source) for source in sources.values())

    def require_space(self) -> None:
        """Raise NoSpace if the bytes still to be copied exceed the free space."""
        there_bytes = sum(_size_or_none(place) for name in self._sources for place in self._places(name))
        existing = next(folder for folder in (self._into, *self._into.parents) if folder.exists())
        free_bytes = shutil.disk_usage(existing).free
        if self.total_bytes - there_bytes > free_bytes:
            raise NoSpace(
                f"{size_text(self.total_bytes - there_bytes)} must be copied, "
                f"but {existing} has {size_text(free_bytes)} free",
                hint=f"mmd disk; df -h {quote(str(existing))}   # see what takes the space",
            )

    def copy(self, report: Report, learned: HashLearned) -> None:
        """Copy the files, and call `learned` for each whose hash was unknown.

        Raises BadModelFile if a source does not have its known hash, NoSpace and StorageFailed. The bytes copied so far
        stay for the next attempt.
        """
        with _alone_in(self._into):
            self._copy_all(report, learned)

    def _copy_all(self, report: Report, learned: HashLearned) -> None:
        done_bytes = 0
        for name, source in self._sources.items():
            whole, partial = self._places(name)
            if not self._is_copied(name, source, whole):
                digest = _copy_file(source, partial, _onto(done_bytes, report))
                if name not in self._sha256:
                    self._sha256[name] = digest
                    learned(name, digest)
                if digest != self._sha256[name]:
                    partial.unlink()
                    raise _damaged(source, digest, self._sha256[name])
                partial.replace(whole)
            done_bytes += _size_bytes(source)
            report(done_bytes)

    def verify(self, report: Report) -> None:
        """Read the copies back from the disk.

        Raises StorageFailed if one differs; that one is deleted, so that the next attempt copies it again.
        """
        copies = {str(self._places(name)[0]): name for name in self._sources}
        for path, found in sha256_of(copies, report).items():
            if found != self._sha256[copies[path]]:
                Path(path).unlink(missing_ok=True)
                raise StorageFailed(
                    f"the copy {path} differs from its source and was deleted: the disk or its connection is faulty",
                    hint=f"dmesg | tail; df {quote(str(self._into))}   # then run the same command again",
                )
        self._remove_strangers()

    def _remove_strangers(self) -> None:
        """Delete what an attempt with another version of the model left behind."""
        for path in self._into.rglob("*"):
            if path.is_file() and path.relative_to(self._into).as_posix() not in self._sources:
                path.unlink()

    def _places(self, name: str) -> tuple[Path, Path]:
        """Return the paths of the complete copy and of the one in progress."""
        return self._into / name, self._into / f"{name}.incomplete"

    def _is_copied(self, name: str, source: Path, whole: Path) -> bool:
        """True if an earlier attempt copied the file; `verify` compares it with the hash recorded then."""
        is_whole = whole.is_file() and not whole.is_symlink() and whole.stat().st_size == _size_bytes(source)
        return is_whole and name in self._sha256


def _copy_file(source: Path, partial: Path, report: Report) -> str:
    """Copy the rest of a file, and return the sha256 of the whole source."""
    with open_regular(source) as opened, _written(partial) as copy:
        writer = _Writer(copy, report)
        try:
            digest = digest_while_reading(opened, writer.write)
        except OSError as error:
            if writer.failed:
                raise
            raise BadModelFile(
                f"{source} cannot be read: {error.strerror or error}", hint="dmesg | tail   # errors of the disk"
            ) from error
        writer.finish()
    return digest


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lock the folder, and create it if needed. A symbolic link in its place is not followed.

    Raises WrongUsage if another process holds the lock: both would append to the same files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(folder, error) from error
    try:
        if not try_lock(descriptor):
            hint = f"fuser -v {quote(str(folder))}   # shows the process"
            raise WrongUsage(f"another mmd is filling {folder}", hint=hint)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _written(partial: Path) -> Iterator[FileIO]:
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "ab", buffering=0) as copy:
            yield copy
    except OSError as error:
        raise _failed(partial, error) from error


def _onto(before_bytes: int, report: Report) -> Report:
    return lambda count: report(before_bytes + count)


class _Writer:
    """Writes a file from its beginning, and skips the bytes that it has already."""

    def __init__(self, copy: FileIO, report: Report) -> None:
        self._copy = copy
        self._report = report
        self._there_bytes = copy.tell()
        self._passed_bytes = 0
        self._synced_bytes = 0
        self.failed = False  # in a write: reading and writing raise the same OSError

    def write(self, block: memoryview) -> None:
        self.failed = True
        left = block[max(self._there_bytes - self._passed_bytes, 0) :]
        while left:
            left = left[self._copy.write(left) :]
        self._passed_bytes += len(block)
        if self._passed_bytes - self._synced_bytes >= _SYNC_BYTES:
            self._sync()
        self.failed = False
        self._report(self._passed_bytes)

    def finish(self) -> None:
        self._copy.truncate(self._passed_bytes)
        self._sync()

    def _sync(self) -> None:
        """Write to the disk and drop from the page cache, so that `verify` reads the disk and not the cache."""
        os.fsync(self._copy.fileno())
        os.posix_fadvise(self._copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._synced_bytes = self._passed_bytes


def _damaged(source: Path, found: str, expected: str) -> BadModelFile:
    return BadModelFile(
        f"{source} is damaged and was not copied: its sha256 is {found}, expected {expected}",
        hint="mmd verify   # lists damaged files and how to download them again",
    )


def _failed(copy: Path, error: OSError) -> StorageFailed:
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
    return kind(
        f"{copy} cannot be written: {error.strerror or error}; the next attempt continues from here",
        hint=f"df -h {quote(str(copy.parent))}   # then run the same command again",
    )


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise BadModelFile(f"{file} cannot be read: {error.strerror}", hint=f"ls -lL {quote(str(file))}") from error


def _size_or_none(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0

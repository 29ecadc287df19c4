"""A model's files from one folder to another: taken up where an earlier attempt ended, and read back to be compared."""

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

UNFINISHED = ".mmd-incomplete"  # the end of a folder's name while it is being filled

RefusedFlags = Callable[[str, str], None]  # a file's name, and its sha256


class Copying:
    """`sources` by the names that the files get below `into`; `sha256` what is known of them, by the same names."""

    def __init__(self, sources: Mapping[str, Path], sha256: Mapping[str, str], into: Path) -> None:
        self._sources = sources
        self._sha256 = dict(sha256)
        self._into = into
        self.total_bytes = sum(_size_bytes(source) for source in sources.values())

    def require_space(self) -> None:
        """Raises NoSpace where what is still to be copied is larger than what is left."""
        there_bytes = sum(_size_or_none(place) for name in self._sources for place in self._places(name))
        existing = next(folder for folder in (self._into, *self._into.parents) if folder.exists())
        free_bytes = shutil.disk_usage(existing).free
        if self.total_bytes - there_bytes > free_bytes:
            raise NoSpace(
                f"{size_text(self.total_bytes - there_bytes)} are to be copied, "
                f"and {existing} has {size_text(free_bytes)} left",
                hint=f"mmd disk; df -h {quote(str(existing))}   # see what takes the space",
            )

    def copy(self, report: Report, learned: RefusedFlags) -> None:
        """`learned` is called for each file whose hash was not known. Raises BadModelFile where a source is not what it
        is to be, NoSpace and StorageFailed; what has been copied then stays for the next attempt.
        """
        with _alone_in(self._into):
            self._copy_all(report, learned)

    def _copy_all(self, report: Report, learned: RefusedFlags) -> None:
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

        Raises StorageFailed where one differs: it is deleted, so that the next attempt copies it anew.
        """
        copies = {str(self._places(name)[0]): name for name in self._sources}
        for path, found in sha256_of(copies, report).items():
            if found != self._sha256[copies[path]]:
                Path(path).unlink(missing_ok=True)
                raise StorageFailed(
                    f"the copy {path} is not what was copied, and was deleted: the disk or the way to it is faulty",
                    hint=f"dmesg | tail; df {quote(str(self._into))}   # then once more the same command",
                )
        self._remove_strangers()

    def _remove_strangers(self) -> None:
        """What an attempt left that was about another version of the model."""
        for path in self._into.rglob("*"):
            if path.is_file() and path.relative_to(self._into).as_posix() not in self._sources:
                path.unlink()

    def _places(self, name: str) -> tuple[Path, Path]:
        """Of a whole copy, and of one that is under way."""
        return self._into / name, self._into / f"{name}.incomplete"

    def _is_copied(self, name: str, source: Path, whole: Path) -> bool:
        """By an earlier attempt: `verify` compares it with the hash that was learned then."""
        is_whole = whole.is_file() and not whole.is_symlink() and whole.stat().st_size == _size_bytes(source)
        return is_whole and name in self._sha256


def _copy_file(source: Path, partial: Path, report: Report) -> str:
    """Returns the sha256 of the source. What is there of the copy is not written again."""
    with open_regular(source) as opened, _written(partial) as copy:
        writer = _Writer(copy, report)
        try:
            digest = digest_while_reading(opened, writer.write)
        except OSError as error:
            if writer.failed:
                raise
            raise BadModelFile(
                f"{source} cannot be read: {error.strerror or error}", hint="dmesg | tail   # what the disk says"
            ) from error
        writer.finish()
    return digest


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Raises WrongUsage where another process fills it, too: both would add to the same files. Of a link that somebody
    else has put there nothing is followed.
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
    """Writes a file from its beginning, except what is there already."""

    def __init__(self, copy: FileIO, report: Report) -> None:
        self._copy = copy
        self._report = report
        self._there_bytes = copy.tell()
        self._passed_bytes = 0
        self._synced_bytes = 0
        self.failed = False  # a write, where reading and writing raise the same

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
        """Down to the disk and out of the page cache: others have use for that, and the copy is to be read back."""
        os.fsync(self._copy.fileno())
        os.posix_fadvise(self._copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._synced_bytes = self._passed_bytes


def _damaged(source: Path, found: str, expected: str) -> BadModelFile:
    return BadModelFile(
        f"{source} is damaged, so it is not copied: its sha256 is {found}, and was {expected}",
        hint="mmd verify   # which files are damaged, and how to fetch them again",
    )


def _failed(copy: Path, error: OSError) -> StorageFailed:
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
    return kind(
        f"{copy} cannot be written: {error.strerror or error}; what is copied stays for the next attempt",
        hint=f"df -h {quote(str(copy.parent))}   # then once more the same command",
    )


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise BadModelFile(f"{file} cannot be read: {error.strerror}", hint=f"ls -lL {quote(str(file))}") from error


def _size_or_none(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0

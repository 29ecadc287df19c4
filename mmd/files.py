"""Files that several processes of mmd share: read again when they change, locked, and kept aside when damaged."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Generic, TypeVar

from mmd.errors import MmdError
from mmd.paths import make_private

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_RETRY_SECONDS = 0.002
_MAX_RETRY_SECONDS = 0.05


class ReloadOnChange(Generic[T]):
    """A value read from a file, and read again if the file has changed: otherwise `current` costs one stat()."""

    def __init__(self, file: Path, read: Callable[[], T], *, initial: T | None = None, keeps: str = "") -> None:
        """`initial`: the value until the first successful read. `keeps`: what stays as it is, for the log, if a later
        `read` raises MmdError; without it `current` raises.
        """
        self._file = file
        self._read = read
        self._value = initial
        self._keeps = keeps
        self._stamp: tuple[int, ...] = ()

    def current(self) -> T:
        """Return the value of the file as it is now."""
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._reload(stamp)
        assert self._value is not None
        return self._value

    def _reload(self, stamp: tuple[int, ...]) -> None:
        # The stamp is from before the read: a file replaced meanwhile is read once more, and never missed.
        try:
            self._value = self._read()
        except MmdError as error:
            if not self._keeps or self._value is None:
                raise
            _log.warning("%s; %s stay as they are", error.message, self._keeps)
        self._stamp = stamp


def _stamp(file: Path) -> tuple[int, ...]:
    """Return what differs after each change of a file; a missing and an unreadable file have a stamp, too."""
    try:
        status = os.stat(file)  # noqa: PTH116 each request does two of these
    except OSError as error:
        return (error.errno or 0,)
    return status.st_ino, status.st_size, status.st_mtime_ns


def locked(file: Path, *, timeout_seconds: float | None = None) -> FileIO:
    """Open `file` with an exclusive lock on it, which is released when it is closed or the process ends.

    Raises OSError, and of these BlockingIOError if another process still holds the lock after `timeout_seconds`.
    """
    lock = open_lock(file)
    try:
        _lock(lock.fileno(), timeout_seconds)
    except BaseException:
        lock.close()
        raise
    return lock


def open_lock(file: Path) -> FileIO:
    """Open a lock file for `try_lock`, and make it and its folder if they are missing. Raises OSError."""
    make_private(file.parent)
    return FileIO(file, "r+", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o600))


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; return False if it is locked already."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def retry_delays() -> Iterator[float]:
    """Yield the seconds to wait before each further `try_lock`: short at first, then longer."""
    delay = _FIRST_RETRY_SECONDS
    while True:
        yield delay
        delay = min(delay * 1.5, _MAX_RETRY_SECONDS)


def _lock(descriptor: int, timeout_seconds: float | None) -> None:
    if timeout_seconds is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + timeout_seconds
    for delay in retry_delays():
        if try_lock(descriptor):
            return
        if time.monotonic() >= deadline:
            raise BlockingIOError
        time.sleep(delay)


def aside_path(file: Path) -> Path:
    """Return where a damaged file is kept: named after its last change, so that one damage makes one copy."""
    changed = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(file.stat().st_mtime))
    return file.with_name(f"{file.name}.damaged-{changed}")


def keep_aside(file: Path) -> Path:
    """Rename a damaged file to its `aside_path`, and return that. Raises OSError."""
    return file.replace(aside_path(file))

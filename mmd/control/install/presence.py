"""Detect whether a gateway serves the Unix socket, and its version.

A connection cannot tell: systemd listens there and would start a gateway. The gateway holds a file lock while it
serves; the kernel releases it however the gateway ends. The file contains the version.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from mmd.paths import make_private, runtime_dir

# Open file description locks, fcntl(2): unlike flock(2), F_OFD_GETLK tests the lock without taking it. A test that took
# it could keep a starting gateway from its lock.
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Presence:
    """The lock of a running gateway: held from `announce` to `withdraw` or to the end of the process."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def announce(self, version: str) -> None:
        """Take the lock, unless another gateway holds it. Raises OSError if the runtime folder is not usable."""
        file = _lock_file()
        make_private(file.parent)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except BlockingIOError:
            os.close(descriptor)
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, version.encode(), 0)
        self._descriptor = descriptor

    def withdraw(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def running_version() -> str | None:
    """Return the version of the running gateway, or None."""
    try:
        descriptor = os.open(_lock_file(), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lock_type = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE))[0]
        return None if lock_type == fcntl.F_UNLCK else os.pread(descriptor, 100, 0).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def _lock_file() -> Path:
    return runtime_dir() / ".gateway.lock"  # a model id never begins with a dot

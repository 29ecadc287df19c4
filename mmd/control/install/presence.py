"""Whether a gateway runs that can be asked on the Unix socket.

Connecting would tell, but it would also start one: systemd listens there for the gateway. So the gateway holds a lock
while it serves, which the kernel lets go of however it ends, and beside it says of what version it is.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from mmd.paths import make_private, runtime_dir

# Locks of open file descriptions, fcntl(2): unlike those of flock(2) one can look at them without taking them, and a
# look at the wrong moment must not keep a gateway from its lock.
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Presence:
    """Held from `announce` to `withdraw`, or to the end of the process."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def announce(self, version: str) -> None:
        """Does nothing where another gateway holds it. Raises OSError where the runtime folder cannot be used."""
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
    """The version of the gateway that serves now; None where none does."""
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
    return runtime_dir() / ".gateway.lock"  # no model's id begins with a dot

"""File locks between processes of mmd. The kernel releases them when a process ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mmd.errors import Busy, StorageFailed
from mmd.files import open_lock, retry_delays, try_lock
from mmd.paths import runtime_dir

# Longer than the longest holder, a demotion: 60 s to wake it from RAM, 20 for its wake check, 20 to stop
# it if that fails, and 90 until systemd's timeout of the hook that puts it to sleep again.
_PLANNER_TIMEOUT_SECONDS = 200.0
_RECORD_TIMEOUT_SECONDS = 10.0  # two reads over D-Bus, and one small file
_BOOT_TIMEOUT_SECONDS = 3600.0  # a boot loads several models, and a second boot can only wait for its end

_log = logging.getLogger(__name__)


@asynccontextmanager
async def planner_lock() -> AsyncIterator[None]:
    """Hold the lock under which the units are read, a decision is made, and its jobs are submitted.

    It is held for milliseconds; longer while an engine stops whose units have to be replaced, or while a sleeper is
    moved to a deeper level. Raises StorageFailed if the runtime folder cannot be created, and Busy if another
    process holds the lock for too long.
    """
    with _opened(".lock") as (descriptor, path):
        await _acquire(descriptor, path, _PLANNER_TIMEOUT_SECONDS)
        yield


@asynccontextmanager
async def boot_lock() -> AsyncIterator[None]:
    """Hold the lock of a boot: one runs at a time. Raises the errors of `planner_lock`."""
    with _opened(".boot.lock") as (descriptor, path):
        if not try_lock(descriptor):
            _log.warning("another boot is running; this one waits until it ends")
            await _acquire(descriptor, path, _BOOT_TIMEOUT_SECONDS)
        yield


@asynccontextmanager
async def record_lock() -> AsyncIterator[None]:
    """Hold the lock under which the resident models are read and recorded. Raises the errors of `planner_lock`."""
    with _opened(".resident.lock") as (descriptor, path):
        await _acquire(descriptor, path, _RECORD_TIMEOUT_SECONDS)
        yield


@contextmanager
def _opened(name: str) -> Iterator[tuple[int, Path]]:
    path = runtime_dir() / name  # model ids do not begin with a dot
    try:
        lock = open_lock(path)
    except OSError as error:
        raise StorageFailed(
            f"the runtime folder {path.parent} cannot be used: {error.strerror}",
            hint="echo $XDG_RUNTIME_DIR; systemctl --user status   # a login session has one of its own",
        ) from error
    with lock:
        yield lock.fileno(), path


async def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    try:
        async with asyncio.timeout(wait_seconds):
            delays = retry_delays()
            while not try_lock(descriptor):  # noqa: ASYNC110 a file lock cannot be awaited
                await asyncio.sleep(next(delays))
    except TimeoutError as error:
        raise Busy(
            f"another mmd process has held {path} for {wait_seconds:.0f} s",
            hint=f"fuser -v {path}   # shows the process",
        ) from error

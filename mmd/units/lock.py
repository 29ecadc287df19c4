"""Locks between processes of mmd, as files that the kernel lets go of when their holder ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mmd.errors import Busy, StorageFailed
from mmd.files import open_lock, retry_delays, try_lock
from mmd.paths import runtime_dir

# Above what the longest of them may take, to demote a sleeper: 60 s to wake it from RAM, 20 for its canary, 20 to end
# it where that fails, and 90 until systemd gives up the hook that puts it to sleep again.
_PLANNER_SECONDS = 200.0
_BOOT_SECONDS = 3600.0  # a boot loads several models, and a second one has nothing to do but wait

_log = logging.getLogger(__name__)


@asynccontextmanager
async def planner_lock() -> AsyncIterator[None]:
    """Whoever reads the units to decide, and submits, does both under it: for milliseconds, for as long as an engine
    takes to stop whose units have to be made anew, or while a sleeper is woken to sleep more deeply.

    Raises StorageFailed where the runtime folder cannot be made, Busy where another process holds on to the lock.
    """
    with _opened(".lock") as (descriptor, path):
        await _acquire(descriptor, path, _PLANNER_SECONDS)
        yield


@asynccontextmanager
async def boot_lock() -> AsyncIterator[None]:
    """One boot at a time. Raises as `planner_lock`."""
    with _opened(".boot.lock") as (descriptor, path):
        if not try_lock(descriptor):
            _log.warning("another boot is under way; this one waits for its end")
            await _acquire(descriptor, path, _BOOT_SECONDS)
        yield


@contextmanager
def _opened(name: str) -> Iterator[tuple[int, Path]]:
    path = runtime_dir() / name  # no model's id begins with a dot
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
            f"another mmd has been deciding for {wait_seconds:.0f} s and holds {path}",
            hint=f"fuser -v {path}   # who it is",
        ) from error

"""Locks between processes of mmd, as files that the kernel lets go of when their holder ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mmd.errors import MmdError, StorageFailed
from mmd.paths import runtime_dir

_PLANNER_SECONDS = 120.0
_BOOT_SECONDS = 3600.0  # a boot loads several models, and a second one has nothing to do but wait
_TRY_SECONDS = 0.002


@asynccontextmanager
async def planner_lock() -> AsyncIterator[None]:
    """Whoever reads the units to decide, and submits, does both under it: for milliseconds, or for as long as an engine
    takes to stop whose units have to be made anew.

    Raises StorageFailed where the runtime folder cannot be made, MmdError where another holds on to the lock.
    """
    async with _held(".lock", _PLANNER_SECONDS):
        yield


@asynccontextmanager
async def boot_lock() -> AsyncIterator[None]:
    """One boot at a time. Raises as `planner_lock`."""
    async with _held(".boot.lock", _BOOT_SECONDS):
        yield


@asynccontextmanager
async def _held(name: str, wait_seconds: float) -> AsyncIterator[None]:
    path = runtime_dir() / name  # no model's id begins with a dot
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailed(
            f"the runtime folder {path.parent} cannot be used: {error.strerror}",
            hint="echo $XDG_RUNTIME_DIR; systemctl --user status   # a login session has one of its own",
        ) from error
    try:
        await _acquire(descriptor, path, wait_seconds)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


async def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    try:
        async with asyncio.timeout(wait_seconds):
            while not _try(descriptor):  # noqa: ASYNC110 a file lock cannot be awaited
                await asyncio.sleep(_TRY_SECONDS)
    except TimeoutError as error:
        raise MmdError(
            f"another mmd has been deciding for {wait_seconds:.0f} s and holds {path}",
            hint=f"fuser -v {path}   # who it is",
        ) from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Suspending: whether logind waits until models have left the GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.units.login1 import LockRefused, Login1, LogindAway

_WHY = "mmd doctor looks whether this is allowed"


@dataclass(frozen=True, slots=True)
class SleepLock:
    """What the gateway holds up a sleep with."""

    seconds: float  # for so long at most
    refusal: str = ""  # why it is not to be had
    hint: str = ""


def read_sleep_lock() -> SleepLock | None:
    """None where there is no logind. A lock is taken, and let go at once."""
    return asyncio.run(_read())


async def _read() -> SleepLock | None:
    try:
        async with await Login1.connect() as login1:
            seconds = await login1.longest_delay_seconds()
            try:
                (await login1.delay_sleep(_WHY)).close()
            except LockRefused as error:
                return SleepLock(seconds, error.message, error.hint)
            return SleepLock(seconds)
    except LogindAway:
        return None


def check_suspend(lock: SleepLock | None, *, has_gpu: bool) -> Iterator[Diagnosis]:
    if lock is None:
        yield ok("no logind: not followed")
    elif not has_gpu:
        yield ok("models on the CPU stay as they are")
    elif lock.refusal:
        yield warning(f"{lock.refusal}; answers are cut short when the machine suspends", lock.hint)
    else:
        yield ok(f"models leave the GPU first; logind waits {lock.seconds:g} s for that")

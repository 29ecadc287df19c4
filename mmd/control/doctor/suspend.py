"""Check whether logind delays a suspend until models have left the GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.units.login1 import LockRefused, Login1, LogindAway

_WHY = "mmd doctor checks whether this is allowed"


@dataclass(frozen=True, slots=True)
class SleepLock:
    """The delay lock that the gateway takes before a suspend."""

    seconds: float  # maximum delay (InhibitDelayMaxSec)
    refusal: str = ""  # why logind does not grant it; "" if it does
    hint: str = ""


def read_sleep_lock() -> SleepLock | None:
    """Take a delay lock and release it at once. Returns None if logind does not run."""
    return asyncio.run(_read())


async def _read() -> SleepLock | None:
    try:
        async with await Login1.connect() as login1:
            seconds = await login1.max_delay_seconds()
            try:
                (await login1.delay_sleep(_WHY)).close()
            except LockRefused as error:
                return SleepLock(seconds, error.message, error.hint)
            return SleepLock(seconds)
    except LogindAway:
        return None


def check_suspend(lock: SleepLock | None, *, has_gpu: bool) -> Iterator[Diagnosis]:
    if lock is None:
        yield ok("no logind, so mmd does not act on a suspend")
    elif not has_gpu:
        yield ok("models on the CPU are not affected by a suspend")
    elif lock.refusal:
        yield warning(f"{lock.refusal}; a suspend interrupts responses", lock.hint)
    else:
        yield ok(f"models leave the GPU first; logind waits up to {lock.seconds:g} s")

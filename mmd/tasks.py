"""Background tasks whose failures are seen: logged when they happen, and worked on again where that makes sense."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from mmd.errors import MmdError

_MIN_BACKOFF_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 60.0

_log = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()  # asyncio itself keeps weak references only

T = TypeVar("T")


def spawn(name: str, work: Coroutine[Any, Any, T], *, logs: bool = True) -> asyncio.Task[T]:
    """Start a task. An exception that ends it is logged at once, with its traceback; not if `logs` is false, for a
    caller that reads the result itself.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    if logs:
        task.add_done_callback(_log_failure)
    return task


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, and run it again each time that an exception ends it, until it returns or is cancelled.

    Waits between two runs: 1 s at first, twice as long each time, up to a minute. A run that lasts longer than that
    counts as a success.
    """
    backoff_seconds = _MIN_BACKOFF_SECONDS
    while True:
        began = monotonic()
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - of any kind: it is logged, and the work is started again
            if monotonic() - began > _MAX_BACKOFF_SECONDS:
                backoff_seconds = _MIN_BACKOFF_SECONDS
            _log.error(
                "%s failed and starts again in %.0f s: %s", name, backoff_seconds, error, exc_info=_trace_of(error)
            )
        else:
            return
        await asyncio.sleep(backoff_seconds)
        backoff_seconds = min(2 * backoff_seconds, _MAX_BACKOFF_SECONDS)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed: %s", task.get_name(), error, exc_info=_trace_of(error))


def _trace_of(error: BaseException) -> BaseException | None:
    """An MmdError says all in its message."""
    return None if isinstance(error, MmdError) else error

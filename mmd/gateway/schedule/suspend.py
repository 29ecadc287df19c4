"""Take all models off the GPUs before the machine suspends, and restore them afterwards; requests wait meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from io import FileIO
from time import monotonic

from mmd.errors import MmdError
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn
from mmd.units.login1 import LockRefused, Login1

# The share of logind's delay for running responses. Engines need the rest to fall asleep or to end.
_RESPONSES_SHARE = 0.5
# The share of the delay after which the lock is released, done or not: logind then stops waiting.
_ALL_SHARE = 0.9
_WHY = "unload models from the GPUs"
# Time until the next attempt to reach logind.
_FIRST_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 300.0

_log = logging.getLogger(__name__)


class SuspendCoordinator:
    """Clears the GPUs before a suspend, and restores their models afterwards. Owns the two tasks that do so."""

    def __init__(
        self, models: Models, scheduler: Scheduler, limits: Limits, abort_requests: Callable[[], None]
    ) -> None:
        """`abort_requests` ends all running responses."""
        self._models = models
        self._scheduler = scheduler
        self._limits = limits
        self._abort_requests = abort_requests
        self._is_suspending = False
        self._clearing: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None

    async def prepare(self, within_seconds: float) -> None:
        """Take all models off the GPUs, and keep those free until `restore`. Return when that is done, or when
        `within_seconds` are over; then the work continues while the machine is still up.
        """
        if self._is_suspending:
            return
        self._is_suspending, began = True, monotonic()
        await _ended(self._restoring, cancel=True)
        # Pause before reading which models are on a GPU: a request could load another one.
        was_in_use = self._scheduler.is_swapping or self._scheduler.is_paused
        await self._scheduler.pause()
        if not (was_in_use or await self._models.on_gpu()):
            return
        await self._scheduler.drain(began + min(within_seconds * _RESPONSES_SHARE, self._limits.drain_seconds))
        self._abort_requests()
        self._clearing = spawn("suspend: clear", self._clear(self._clearing, drain_seconds=monotonic() - began))
        left_seconds = began + within_seconds * _ALL_SHARE - monotonic()
        done, _ = await asyncio.wait([self._clearing], timeout=max(0.0, left_seconds))
        if not done and within_seconds:
            _log.warning("models are still on a GPU, but logind delays the suspend by %.1f s only", within_seconds)

    def restore(self) -> None:
        """Start restoring the suspended models, unless that is running. Requests are admitted again at its end."""
        self._is_suspending = False
        is_under_way = self._restoring is not None and not self._restoring.done()
        if not is_under_way and (self._scheduler.is_paused or self._models.suspended()):
            self._restoring = spawn("suspend: restore", self._restore())

    async def close(self) -> None:
        for task in (self._clearing, self._restoring):
            await _ended(task, cancel=True)

    async def _clear(self, after: asyncio.Task[None] | None, *, drain_seconds: float) -> None:
        await _ended(after)  # it may still run if the machine was awake only for a moment
        try:
            await self._models.suspend(drain_seconds=drain_seconds)
        except MmdError as error:
            _log.warning("the GPUs cannot be cleared before the machine suspends: %s", error.message)

    async def _restore(self) -> None:
        """Load what requests wait for and what is pinned, admit requests again, and then restore the other suspended
        models that fit beside: none is loaded that a waiting request would unload at once.
        """
        await _ended(self._clearing)
        if self._models.suspended():
            await self._load(self._first())
        self._scheduler.resume()
        await self._load(self._models.suspended())

    def _first(self) -> tuple[str, ...]:
        """Return the models to load before requests are admitted: pinned ones, then those that requests wait for."""
        pinned, waiting = self._models.pinned(), self._scheduler.waiting_models
        suspended = self._models.suspended()
        first = [name for name in suspended if name in pinned]
        wanted = [name for name in waiting if name not in pinned]
        # Without waiting requests, the one that was asked for last: the next request probably names it.
        return tuple(dict.fromkeys((*first, *wanted))) or tuple(suspended[:1])

    async def _load(self, model_ids: Sequence[str]) -> None:
        try:
            if model_ids:
                await self._models.restore(model_ids)
        except Exception:  # noqa: BLE001 - of any kind: requests must be admitted again
            _log.exception("cannot restore the suspended models")


class SuspendWatch:
    """Follows logind's signals and holds its delay lock, so that a suspend waits for `SuspendCoordinator`."""

    def __init__(self, coordinator: SuspendCoordinator) -> None:
        self._coordinator = coordinator
        self._logged = ""

    async def run(self) -> None:
        """Run until cancelled. Without logind, look for it again at growing intervals."""
        try:
            retry_seconds = _FIRST_RETRY_SECONDS
            while True:
                try:
                    async with await Login1.connect() as login1:
                        retry_seconds = _FIRST_RETRY_SECONDS
                        await self._follow(login1)
                except MmdError as error:
                    self._log_once(f"{error.message}; models stay on the GPUs when the machine suspends")
                except Exception:  # noqa: BLE001 - of any kind: the next suspend must be seen
                    _log.exception("following logind failed; trying again")
                self._coordinator.restore()  # without logind no signal reports that the machine is awake
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _MAX_RETRY_SECONDS)
        finally:
            await self._coordinator.close()

    async def _follow(self, login1: Login1) -> None:
        """Follow until logind has ended."""
        lock: FileIO | None = None
        try:
            async for is_suspending in login1.sleeps():
                if is_suspending:
                    await self._coordinator.prepare(await login1.max_delay_seconds() if lock else 0.0)
                    if lock is not None:
                        lock.close()
                        lock = None
                else:
                    lock = lock or await self._locked(login1)
                    self._coordinator.restore()
        finally:
            if lock is not None:
                lock.close()

    async def _locked(self, login1: Login1) -> FileIO | None:
        try:
            return await login1.delay_sleep(_WHY)
        except LockRefused as error:
            self._log_once(f"{error.message}; responses are cut short when the machine suspends: {error.hint}")
            return None

    def _log_once(self, message: str) -> None:
        if message != self._logged:
            self._logged = message
            _log.info("%s", message)


async def _ended(task: asyncio.Task[None] | None, *, cancel: bool = False) -> None:
    """Return when a task has ended, in any way."""
    if task is None:
        return
    if cancel:
        task.cancel()
    await asyncio.wait([task])

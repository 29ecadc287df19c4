"""The machine suspends: requests wait, responses end, models leave the GPU, and are restored after."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from io import FileIO
from time import monotonic

from mmd.errors import MmdError
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn
from mmd.units.login1 import LockRefused, Login1

# Of the time that logind waits. The rest is for engines, which take a moment to fall asleep or to end.
_ANSWERS_SHARE = 0.5
# logind does not wait longer than it says, so its lock is released a little earlier, done or not.
_ALL_SHARE = 0.9
_WHY = "models leave the GPU first"
# How long until the next look for logind, if there is none.
_FIRST_RETRY_SECONDS = 1.0
_MOST_RETRY_SECONDS = 300.0

_log = logging.getLogger(__name__)


class SuspendCoordinator:
    """Clears the GPU before a suspend, and restores its models after. It owns the two tasks that do so."""

    def __init__(
        self, models: Models, scheduler: Scheduler, limits: Limits, abort_requests: Callable[[], None]
    ) -> None:
        """`abort_requests` ends what engines are working on."""
        self._models = models
        self._scheduler = scheduler
        self._limits = limits
        self._abort_requests = abort_requests
        self._is_suspending = False
        self._clearing: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None

    async def prepare(self, within_seconds: float) -> None:
        """Take all models off the GPU, and keep it free until `awaken`. Return when that is done, or when the time is
        over: the work goes on then, for as long as the machine is up.
        """
        if self._is_suspending:
            return
        self._is_suspending, began = True, monotonic()
        await _ended(self._returning, cancel=True)
        # Before reading which models are there: a request could load one into the suspend.
        was_in_use = self._scheduler.is_swapping or self._scheduler.is_paused
        await self._scheduler.pause()
        if not (was_in_use or await self._models.on_gpu()):
            return
        await self._scheduler.drain(began + min(within_seconds * _ANSWERS_SHARE, self._limits.drain_seconds))
        self._abort_requests()
        self._clearing = spawn("suspend: clear", self._clear(self._clearing, drain_seconds=monotonic() - began))
        left_seconds = began + within_seconds * _ALL_SHARE - monotonic()
        done, _ = await asyncio.wait([self._clearing], timeout=max(0.0, left_seconds))
        if not done and within_seconds:
            _log.warning("the machine suspends although the GPU is not clear: logind waits for %.1f s", within_seconds)

    def awaken(self) -> None:
        """Start to restore the suspended models, unless that is running; requests go on when it has ended."""
        self._is_suspending = False
        is_under_way = self._returning is not None and not self._returning.done()
        if not is_under_way and (self._scheduler.is_paused or self._models.suspended()):
            self._returning = spawn("suspend: restore", self._restore())

    async def close(self) -> None:
        for task in (self._clearing, self._returning):
            await _ended(task, cancel=True)

    async def _clear(self, after: asyncio.Task[None] | None, *, drain_seconds: float) -> None:
        await _ended(after)  # if the machine was awake for a moment only
        try:
            await self._models.suspend(drain_seconds=drain_seconds)
        except MmdError as error:
            _log.warning("the GPU cannot be cleared before the machine suspends: %s", error.message)

    async def _restore(self) -> None:
        """Restore while requests are paused: one for another model would be served first, and unload this one."""
        await _ended(self._clearing)
        try:
            if self._models.suspended():
                await self._models.restore(self._to_restore())
        except Exception:  # noqa: BLE001 - of any kind: requests must go on
            _log.exception("cannot restore the suspended models")
        self._scheduler.resume()

    def _to_restore(self) -> tuple[str, ...]:
        """Return the suspended models without those that waiting requests for another model would unload at once."""
        waiting_models, pinned = self._scheduler.waiting_models, self._models.pinned()
        return tuple(name for name in self._models.suspended() if name in pinned or set(waiting_models) <= {name})


class SuspendWatch:
    """Follows logind, and holds its delay lock meanwhile, so that a suspend waits for `SuspendCoordinator`."""

    def __init__(self, suspension: SuspendCoordinator) -> None:
        self._suspension = suspension
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
                    self._log_once(f"{error.message}; models stay on the GPU when the machine suspends")
                except Exception:  # noqa: BLE001 - of any kind: the next suspend must be seen
                    _log.exception("following logind failed; trying again")
                self._suspension.awaken()  # no signal would say that the machine is awake
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _MOST_RETRY_SECONDS)
        finally:
            await self._suspension.close()

    async def _follow(self, login1: Login1) -> None:
        """Follow until logind has ended."""
        lock: FileIO | None = None
        try:
            async for is_going in login1.sleeps():
                if is_going:
                    await self._suspension.prepare(await login1.longest_delay_seconds() if lock else 0.0)
                    if lock is not None:
                        lock.close()
                        lock = None
                else:
                    lock = lock or await self._locked(login1)
                    self._suspension.awaken()
        finally:
            if lock is not None:
                lock.close()

    async def _locked(self, login1: Login1) -> FileIO | None:
        try:
            return await login1.delay_sleep(_WHY)
        except LockRefused as error:
            self._log_once(f"{error.message}; answers are cut short when the machine suspends: {error.hint}")
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

"""The machine suspends: requests wait, answers end, and whoever is on the GPU is put away, and brought back after."""

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

# Of the time that logind waits: the rest is for engines, which take a moment to fall asleep or to end.
_ANSWERS_SHARE = 0.5
# logind waits no longer than it says; who is not done before that lets go all the same.
_ALL_SHARE = 0.9
_WHY = "models leave the GPU first"
# How long until logind is looked for again where there is none.
_FIRST_RETRY_SECONDS = 1.0
_MOST_RETRY_SECONDS = 300.0

_log = logging.getLogger(__name__)


class SuspendCoordinator:
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
        """Have nobody on the GPU, and nobody come onto it until `awaken`. Returns when that is so, or the time is over:
        it is gone on with then, for as long as the machine is up.
        """
        if self._is_suspending:
            return
        self._is_suspending, began = True, monotonic()
        await _ended(self._returning, cancel=True)
        # Before it is looked who is there: a request could load a model into the sleep.
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
        """Begin to bring back who was put away; requests go on after that. Nothing happens where that is so."""
        self._is_suspending = False
        is_under_way = self._returning is not None and not self._returning.done()
        if not is_under_way and (self._scheduler.is_paused or self._models.suspended()):
            self._returning = spawn("suspend: restore", self._restore())

    async def close(self) -> None:
        for task in (self._clearing, self._returning):
            await _ended(task, cancel=True)

    async def _clear(self, after: asyncio.Task[None] | None, *, drain_seconds: float) -> None:
        await _ended(after)  # the machine was awake for a moment only
        try:
            await self._models.suspend(drain_seconds=drain_seconds)
        except MmdError as error:
            _log.warning("the GPU cannot be cleared before the machine suspends: %s", error.message)

    async def _restore(self) -> None:
        """Paused all the while: a request for another model would be served first, and take the place of this one."""
        await _ended(self._clearing)
        try:
            if self._models.suspended():
                await self._models.restore(self._who_returns())
        except Exception:  # noqa: BLE001 - whatever it is, requests must go on; logged with its traceback
            _log.exception("who was put away does not come back")
        self._scheduler.resume()

    def _who_returns(self) -> tuple[str, ...]:
        """Not who would have to go at once, for requests that wait for another model."""
        waiting_models, pinned = self._scheduler.waiting_models, self._models.pinned()
        return tuple(name for name in self._models.suspended() if name in pinned or set(waiting_models) <= {name})


class SuspendWatch:
    """Follows logind, and holds a lock on its sleep while it is followed."""

    def __init__(self, suspension: SuspendCoordinator) -> None:
        self._suspension = suspension
        self._told = ""

    async def run(self) -> None:
        """Until cancelled. Where there is no logind it is looked for again, more and more rarely."""
        try:
            retry_seconds = _FIRST_RETRY_SECONDS
            while True:
                try:
                    async with await Login1.connect() as login1:
                        retry_seconds = _FIRST_RETRY_SECONDS
                        await self._follow(login1)
                except MmdError as error:
                    self._tell_once(f"{error.message}; models stay on the GPU when the machine suspends")
                except Exception:  # noqa: BLE001 - whatever it is, the next suspend is to be seen; logged with its traceback
                    _log.exception("following logind failed; it is tried again")
                self._suspension.awaken()  # nobody would say that the machine is awake again
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _MOST_RETRY_SECONDS)
        finally:
            await self._suspension.close()

    async def _follow(self, login1: Login1) -> None:
        """Until logind has gone."""
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
            self._tell_once(f"{error.message}; answers are cut short when the machine suspends: {error.hint}")
            return None

    def _tell_once(self, message: str) -> None:
        if message != self._told:
            self._told = message
            _log.info("%s", message)


async def _ended(task: asyncio.Task[None] | None, *, cancel: bool = False) -> None:
    """Returns when a task has ended, however it did."""
    if task is None:
        return
    if cancel:
        task.cancel()
    await asyncio.wait([task])

"""Run the scheduler's state machine: feed it events, and carry out its effects. design.md has the states and the rules.

`state.py` says which requests are admitted and which swaps begin. This module has what it cannot have: the futures of
the requests that wait, a task for each swap, the clock and the timer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from itertools import count
from time import monotonic
from typing import Any, TypeVar

from mmd.errors import EngineFailed, MmdError, TryLater
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.changes import Changes
from mmd.gateway.schedule.events import (
    Admit,
    Arrived,
    BeginUnload,
    Changed,
    Closed,
    CutResponses,
    DeclineUnload,
    Effect,
    Event,
    Left,
    Paused,
    Prepare,
    Prepared,
    Refuse,
    Released,
    Resumed,
    StartSwap,
    SwapDropped,
    SwapEnded,
    UnloadAsked,
    UnloadEnded,
    WakeAt,
)
from mmd.gateway.schedule.model_queue import Waiter
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler_view import SchedulerView
from mmd.gateway.schedule.state import SchedulerState
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Scheduler(SchedulerView):
    """Admits requests to engines, and loads and unloads models for them. Owns the state machine, and its tasks."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        super().__init__(SchedulerState(models, limits))
        self._changes = Changes()
        self._numbers = count()
        self._waiters: dict[int, asyncio.Future[str]] = {}
        self._unloads: dict[int, asyncio.Future[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._effects: deque[Effect] = deque()
        self._is_carrying_out = False
        self._before_swaps: list[Callable[[], Awaitable[None]]] = []
        self._on_cut: Callable[[CutResponses], dict[str, int]] = lambda _: {}
        self._cuts: dict[str, dict[str, int]] = {}  # responses that were cut for a model, by model
        models.follow(self._on_units)
        models.use_from(self.uses)

    # -- requests

    def acquire(self, model_id: str) -> str | None:
        """Admit a request, if possible at once, and return its engine's address; the caller must `release` it."""
        state = self._state
        if state.is_paused or model_id in state.closed:
            return None
        address = self._models.address(model_id)
        if address is not None:
            state.admitted.begin(model_id)
            if model_id not in state.admitted.resident_since:
                state.admitted.resident_since[model_id] = monotonic()
        return address

    async def wait(
        self,
        model_id: str,
        *,
        body_bytes: int = 0,
        force_reload: bool = False,
        interactive: bool = False,
        cuts: bool = False,
    ) -> str:
        """Wait until the request is admitted, and return its engine's address; the caller must `release` it.

        The request holds `body_bytes` of memory meanwhile. Raises what the model's activation raises, and TryLater if
        too many requests wait or if the model failed to load recently. An interactive request ignores backoffs and
        pins, precedes other models, and waits only for running responses; if it `cuts`, it does not wait for those.
        """
        ticket = next(self._numbers)
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = waiter
        try:
            self._feed(Arrived(Waiter(ticket, model_id, body_bytes, interactive, cuts, force_reload)))
            self._changes.notify()
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(model_id)  # admitted, and cancelled in the same moment
            raise
        finally:
            if self._waiters.pop(ticket, None) is not None:
                self._feed(Left(ticket))
            self._changes.notify()

    def release(self, model_id: str) -> None:
        """End a request that `acquire` or `wait` admitted."""
        state = self._state
        if state.queues or state.unloads.pending:
            self._feed(Released(model_id))
        else:
            state.admitted.end(model_id, monotonic())
        self._changes.notify()

    async def activate(self, model_id: str, *, now: bool = False) -> dict[str, int]:
        """Make a model resident for a user. This waits like a request, so it cuts no response short; with `now`, it
        cuts those of the models that leave. Return how many responses were cut, by model.
        """
        self._cuts[model_id] = {}
        try:
            await self.wait(model_id, interactive=True, cuts=now)
            self.release(model_id)
            return self._cuts.get(model_id, {})
        finally:
            self._cuts.pop(model_id, None)

    async def drain_for(
        self,
        model_ids: Collection[str],
        work: Callable[[], Awaitable[T]],
        *,
        limit_seconds: float | None = None,
        reason: str = "",
    ) -> T:
        """Run `work`, which unloads these models, when their running responses have ended. New requests for them wait
        until `work` has ended; no swap unloads them meanwhile, or uses their memory.

        After `limit_seconds` (None: `gateway.drain_seconds`; 0: a user asked to cut) the responses that still run are
        cut; the error says that `reason` took the model's memory.
        """
        seconds = self._limits.drain_seconds if limit_seconds is None else limit_seconds
        key = next(self._numbers)
        asked = UnloadAsked(key, frozenset(model_ids), limit_seconds=seconds, reason=reason)
        try:
            await self._unload_begins(asked)
            return await work()
        finally:
            self._feed(UnloadEnded(key))
            self._changes.notify()

    async def idle_out(self, model_id: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Run `work`, which puts an unused model to sleep or stops it; new requests for the model wait until its end.

        Return False without running it if the model is in use. If a swap or another unload concerns the model, wait for
        its end and return False, too: the caller must then decide again.
        """
        key = next(self._numbers)
        try:
            if not await self._unload_begins(UnloadAsked(key, frozenset({model_id}), only_idle=True)):
                return False
            await work()
        finally:
            self._feed(UnloadEnded(key))
            self._changes.notify()
        return True

    async def _unload_begins(self, asked: UnloadAsked) -> bool:
        begins: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._unloads[asked.key] = begins
        try:
            self._feed(asked)
            self._changes.notify()
            return await begins
        finally:
            del self._unloads[asked.key]

    async def pause(self) -> None:
        """Admit no request and start no swap until `resume`. A running activation continues in systemd; its requests
        stay in the queue.
        """
        self._feed(Paused())
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def drain(self, until: float) -> None:
        """Return when all responses have ended, or at `until` on the monotonic clock."""
        while self._state.admitted.total and monotonic() < until:
            await self._changes.wait(until)

    def resume(self) -> None:
        self._feed(Resumed())
        self._changes.notify()

    def close(self) -> None:
        """Refuse the requests that wait. A running activation continues in systemd."""
        for task in tuple(self._tasks):
            task.cancel()
        self._feed(Closed(TryLater("the gateway is restarting", hint="systemctl --user status mmd.service")))
        self._wake_at(math.inf)

    # -- state

    def follow(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a request arrives, is admitted or ends."""
        self._changes.follow(listener)

    def before_swaps(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await `work` before each swap, after the responses of the models that leave have ended."""
        self._before_swaps.append(work)

    def on_cut(self, cut: Callable[[CutResponses], dict[str, int]]) -> None:
        """Call `cut` to end running responses; it returns how many it has ended, by model."""
        self._on_cut = cut

    @property
    def is_serving(self) -> bool:
        """True while a swap or its preparation runs."""
        return bool(self._tasks)

    # -- events in, effects out

    def _on_units(self) -> None:
        state = self._state
        if state.queues or state.unloads.pending or state.swaps or state.admitted.resident_since:
            self._feed(Changed())

    def _feed(self, event: Event) -> None:
        try:
            self._effects += self._state.step(event, monotonic())
        except Exception:  # noqa: BLE001 - of any kind: no request may wait for ever
            _log.exception("the scheduler failed; requests that wait are refused, and the next one starts it again")
            hint = "journalctl --user -u mmd.service   # why"
            error = TryLater("the gateway's scheduler failed", hint=hint, retry_after_seconds=1)
            self._effects += self._state.fail(error)
        if self._is_carrying_out:
            return  # an effect caused this event
        self._is_carrying_out = True
        try:
            while self._effects:
                self._carry_out(self._effects.popleft())
        finally:
            self._is_carrying_out = False

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Admit(ticket, model_id):
                self._admit(ticket, model_id)
            case Refuse(ticket, error):
                waiter = self._waiters.pop(ticket)
                if not waiter.done():
                    waiter.set_exception(error)
            case Prepare(model_id):
                self._run("prepare", self._prepare(model_id))
            case StartSwap():
                self._run("swap", self._swap(effect))
            case CutResponses():
                self._cut(effect)
            case BeginUnload(key):
                self._answer_unload(key, begins=True)
            case DeclineUnload(key):
                self._answer_unload(key, begins=False)
            case WakeAt(at):
                self._wake_at(at)

    def _admit(self, ticket: int, model_id: str) -> None:
        waiter, address = self._waiters.pop(ticket), self._models.address(model_id)
        if waiter.done():  # cancelled just now
            self.release(model_id)
        elif address is None:
            self.release(model_id)
            waiter.set_exception(_ended_at_once(model_id))
        else:
            waiter.set_result(address)

    def _answer_unload(self, key: int, *, begins: bool) -> None:
        asked = self._unloads.get(key)
        if asked is not None and not asked.done():
            asked.set_result(begins)

    def _cut(self, cut: CutResponses) -> None:
        count_by_model = self._on_cut(cut)
        names = ", ".join(f"{number} of {model_id}" for model_id, number in sorted(count_by_model.items()))
        _log.warning("responses were cut for %s: %s", cut.reason, names or "none")
        if cut.reason in self._cuts:
            self._cuts[cut.reason] |= count_by_model

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - monotonic()), self._feed, Changed())

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = spawn(name, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, model_id: str) -> None:
        try:
            await self._models.prepare(model_id)
        except Exception as error:  # noqa: BLE001 - of any kind: raised, and logged, in the waiting requests
            self._feed(Prepared(model_id, error))
        else:
            self._feed(Prepared(model_id))

    async def _swap(self, swap: StartSwap) -> None:
        model_id = swap.model_id
        if model_id not in self._state.queues:  # all clients have disconnected since
            self._feed(SwapDropped(model_id))
            return
        try:
            for work in self._before_swaps:
                await work()
            await self._models.activate(
                model_id,
                drain_seconds=swap.drain_seconds,
                leavers=swap.forecast.leavers,
                devices=swap.forecast.devices or None,
            )
            if self._models.address(model_id) is None:
                raise _ended_at_once(model_id)
        except Exception as error:  # noqa: BLE001 - of any kind: raised, and logged, in the waiting requests
            self._feed(SwapEnded(model_id, error))
        else:
            self._feed(SwapEnded(model_id))
        finally:
            self._changes.notify()


def _ended_at_once(model_id: str) -> MmdError:
    return EngineFailed(f"{model_id} became ready and ended at once", hint=f"mmd logs {model_id}   # see why")

"""Decide which requests are served now, and which wait for a swap. design.md has the states and the rules.

A request for the resident model is admitted at once if no request waits for another model; otherwise `plan.queue`
decides whose turn it is. This module applies that decision: it admits requests or keeps them waiting, lets the old
model finish its responses, and serves all requests that wait for a model with one activation.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import TypeVar

from mmd.errors import EngineFailed, GpuPinned, MmdError, TryLater
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.admitted import Admitted
from mmd.gateway.schedule.backoffs import LoadBackoffs
from mmd.gateway.schedule.changes import Changes
from mmd.gateway.schedule.model_queue import ModelQueue, QueuePosition
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.queue_status import QueueStatus, QueueTurn
from mmd.plan import queue as plan
from mmd.plan.idle import may_evict
from mmd.plan.queue import Grant, QueueLimits, StartSwap, WaitUntil
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Scheduler:
    """The requests in flight and in the queues, and the one task that swaps models for them. It owns that state."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        self._queue_limits = QueueLimits(limits.max_wait_seconds, limits.min_residency_seconds)
        self._queues: dict[str, ModelQueue] = {}  # without empty ones
        self._waiting = 0
        self._waiting_bytes = 0
        self._admitted = Admitted()
        self._activating: tuple[ModelQueue, float] | None = None  # being loaded or woken, since when
        self._unloading: str | None = None  # being put to sleep or stopped: admits no request
        self._is_paused = False  # admits no request, starts no swap
        self._backoffs = LoadBackoffs()
        self._changes = Changes()
        self._before_swaps: list[Callable[[], Awaitable[None]]] = []
        self._runner: asyncio.Task[None] | None = None

    # -- requests

    def acquire(self, model_id: str) -> str | None:
        """Admit a request, if possible at once, and return its engine's address; the caller must `release` it."""
        if (self._queues and not self._may_go_ahead(model_id)) or model_id == self._unloading or self._is_paused:
            return None
        address = self._models.address(model_id)
        if address is not None:
            self._admitted.begin(model_id)
        return address

    async def wait(
        self, model_id: str, *, body_bytes: int = 0, force_reload: bool = False, interactive: bool = False
    ) -> str:
        """Wait until the request is admitted, and return its engine's address; the caller must `release` it.

        The request holds `body_bytes` of memory meanwhile. Raises what the model's activation raises, and TryLater if
        too many requests wait or if the model failed to load recently. An interactive request ignores backoffs and
        pins, precedes other models, and waits only for running responses.
        """
        if not interactive and self._models.address(model_id) is None:
            self._backoffs.refuse(model_id)
        self._refuse_if_pinned(model_id, interactive=interactive)
        self._refuse_if_full(model_id, body_bytes)
        queue = self._queues.setdefault(model_id, ModelQueue(model_id))
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        queue.add(waiter, interactive=interactive, force_reload=force_reload)
        self._waiting += 1
        self._waiting_bytes += body_bytes
        try:
            self._changes.notify()
            self._ensure_running()
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:  # admitted, and cancelled in the same moment
                self.release(model_id)
            raise
        finally:
            self._waiting -= 1
            self._waiting_bytes -= body_bytes
            queue.discard(waiter, interactive=interactive)
            if not queue.enqueued_at and self._queues.get(model_id) is queue:
                del self._queues[model_id]
            self._changes.notify()

    def release(self, model_id: str) -> None:
        """End a request that `acquire` or `wait` admitted."""
        self._admitted.end(model_id)
        self._changes.notify()

    async def activate(self, model_id: str) -> None:
        """Make a model resident for a user. This waits like a request, so it cuts no response short."""
        await self.wait(model_id, interactive=True)
        self.release(model_id)

    async def drain_for(self, model_id: str | None, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work`, which unloads a model for a user, when the model's running responses have ended, or after
        `drain_seconds`. New requests for the model wait until `work` has ended. Without a model, run it at once.
        """
        while self._unloading is not None:
            await self._changes.wait(math.inf)
        if model_id is None:
            return await work()  # `_unloading` is left to an unload that begins meanwhile
        self._unloading = model_id
        deadline = monotonic() + self._limits.drain_seconds
        try:
            while model_id in self._admitted and monotonic() < deadline:
                await self._changes.wait(deadline)
            return await work()
        finally:
            self._unloading = None
            self._changes.notify()

    async def idle_out(self, model_id: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Run `work`, which puts an unused model to sleep or stops it; new requests for the model wait until its end.

        Return False without running it if the model is in use. If a swap or another unload is running, wait for its end
        and return False, too: the caller must then decide again.
        """
        if self._is_busy:
            while self._is_busy:
                await self._changes.wait(math.inf)
            return False
        if self.is_in_use(model_id):
            return False
        self._unloading = model_id
        try:
            await work()
        finally:
            self._unloading = None
            self._changes.notify()
        return True

    async def pause(self) -> None:
        """Admit no request and start no swap until `resume`. A running activation continues in systemd; its requests
        stay in the queue.
        """
        self._is_paused = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
            self._runner = None  # a task cancelled before its first step runs no `finally`

    async def drain(self, until: float) -> None:
        """Return when all responses have ended, or at `until` on the monotonic clock."""
        while self._admitted.total and monotonic() < until:
            await self._changes.wait(until)

    def resume(self) -> None:
        self._is_paused = False
        self._ensure_running()
        self._changes.notify()

    def close(self) -> None:
        """Refuse the requests that wait. A running activation continues in systemd."""
        if self._runner is not None:
            self._runner.cancel()
        self._refuse_all(TryLater("the gateway is restarting", hint="systemctl --user status mmd.service"))

    # -- state

    def follow(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a request arrives, is admitted or ends."""
        self._changes.follow(listener)

    def before_swaps(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await `work` before each swap, after the other models' responses have ended."""
        self._before_swaps.append(work)

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @property
    def is_swapping(self) -> bool:
        return self._activating is not None

    @property
    def waiting_count(self) -> int:
        """How many requests wait, for any model."""
        return self._waiting

    @property
    def in_flight_count(self) -> int:
        """How many requests are admitted and not yet released, for all models."""
        return self._admitted.total

    @property
    def unloading(self) -> str | None:
        """The model that is being put to sleep or stopped; no request for it is admitted meanwhile."""
        return self._unloading

    @property
    def is_serving(self) -> bool:
        """True while the runner task exists; it ends when no request waits."""
        return self._runner is not None

    @property
    def waiting_models(self) -> Collection[str]:
        """The models that requests wait for."""
        return self._queues.keys()

    def in_flight(self, model_id: str) -> int:
        """Return how many requests the model's engine is answering."""
        return self._admitted.count(model_id)

    def is_in_use(self, model_id: str) -> bool:
        """Return whether a request for the model is being answered or waits."""
        return model_id in self._admitted or model_id in self._queues

    def idle_since(self, model_id: str) -> float | None:
        """Return when the model's last response ended, on the monotonic clock; None if it is in use or had none."""
        return None if self.is_in_use(model_id) else self._admitted.idle_since(model_id)

    def position(self, model_id: str) -> QueuePosition:
        """Return the position of a request that waits for this model now."""
        waiting = self._planned()
        order = [queue.model_id for queue in plan.in_order(waiting)]
        turn = order.index(model_id) + 1 if model_id in order else len(order) + 1
        return QueuePosition(turn, max(turn, len(order)), self._expected_seconds(waiting, model_id))

    def queue(self) -> QueueStatus:
        waiting, now = self._planned(), monotonic()
        turns = (
            QueueTurn(
                queue.model_id,
                waiting=len(self._queues[queue.model_id].enqueued_at),
                waited_seconds=round(now - queue.since, 3),
                expected_seconds=self._expected_seconds(waiting, queue.model_id),
            )
            for queue in plan.in_order(waiting)
        )
        return QueueStatus(tuple(turns), self._admitted.status())

    # -- admission

    @property
    def _is_busy(self) -> bool:
        return self._activating is not None or self._unloading is not None or self._is_paused

    def _may_go_ahead(self, model_id: str) -> bool:
        """Return whether a request may overtake those that wait: if it is for the resident model, and in its slice."""
        if self._activating is not None or model_id != self._admitted.resident or model_id in self._queues:
            return False
        resident = self._planned_resident()
        return resident is not None and monotonic() < plan.slice_ends_at(resident, self._planned(), self._queue_limits)

    def _refuse_if_pinned(self, model_id: str, *, interactive: bool) -> None:
        held_by = self._models.gpu_holder(other_than=model_id) if self._models.address(model_id) is None else None
        if held_by is not None and not may_evict(held_by, self._models.pinned(), interactive=interactive):
            message = f"{model_id} would replace {held_by}, which is pinned"
            raise GpuPinned(message, hint=f"mmd activate {model_id}   # anyway; or: mmd sleep {held_by}")

    def _refuse_if_full(self, model_id: str, body_bytes: int) -> None:
        has_room = not self._waiting or self._waiting_bytes + body_bytes <= self._limits.waiting_bytes
        if has_room and self._waiting < self._limits.max_waiting:
            return
        expected = self._expected_seconds(self._planned(), model_id)
        message = f"the queue is full: {self._waiting} requests are waiting"
        retry_after_seconds = plan.retry_after_seconds(expected)
        raise TryLater(message, hint="mmd status   # what they wait for", retry_after_seconds=retry_after_seconds)

    # -- turns

    def _ensure_running(self) -> None:
        if self._queues and self._runner is None and not self._is_paused:
            self._runner = spawn("scheduler", self._run(), logs=False)

    async def _run(self) -> None:
        try:
            while self._queues:
                if self._unloading is not None:
                    await self._changes.wait(math.inf)
                    continue
                match self._decide():
                    case Grant(model_id):
                        self._grant(self._queues[model_id])
                    case StartSwap(model_id):
                        await self._swap_to(self._queues[model_id])
                    case WaitUntil(until):
                        await self._changes.wait(until)
        except Exception:  # noqa: BLE001 - of any kind: no request may wait for ever
            _log.exception("the scheduler failed; requests that wait are refused, and the next one starts it again")
            hint = "journalctl --user -u mmd.service   # why"
            self._refuse_all(TryLater("the gateway's scheduler failed", hint=hint, retry_after_seconds=1))
        finally:
            self._runner = None

    def _decide(self) -> plan.Decision:
        return plan.decide(self._planned(), self._planned_resident(), monotonic(), self._queue_limits)

    def _planned(self) -> list[plan.WaitingModel]:
        return [
            plan.WaitingModel(queue.model_id, queue.since, self._swap_seconds(queue.model_id), queue.interactive > 0)
            for queue in self._queues.values()
        ]

    def _planned_resident(self) -> plan.Resident | None:
        """Return the model that answers: the one admitted last, or one in the queues that another process activated."""
        for model_id in (self._admitted.resident, *self._queues):
            if model_id is None or self._models.address(model_id) is None:
                continue
            if (queue := self._queues.get(model_id)) is not None and queue.force_reload:
                continue
            since = self._admitted.resident_since if model_id == self._admitted.resident else monotonic()
            is_idle = model_id not in self._admitted
            idle_since = max(since, self._admitted.idle_since(model_id) or 0.0) if is_idle else None
            return plan.Resident(model_id, since, idle_since, self._swap_seconds(model_id))
        return None

    def _swap_seconds(self, model_id: str) -> float:
        return self._models.expected_seconds(model_id) or 0.0

    def _expected_seconds(self, waiting: list[plan.WaitingModel], model_id: str) -> float | None:
        began = self._activating[1] if self._activating is not None else monotonic()
        if all(queue.model_id != model_id for queue in waiting):
            waiting = [*waiting, plan.WaitingModel(model_id, monotonic(), self._swap_seconds(model_id))]
        return plan.expected_seconds(waiting, model_id, under_way_seconds=monotonic() - began)

    async def _swap_to(self, queue: ModelQueue) -> None:
        began = monotonic()
        try:
            # A pinned model may have taken the GPU since these requests arrived.
            self._refuse_if_pinned(queue.model_id, interactive=queue.interactive > 0)
        except GpuPinned as error:
            self._fail(queue, error)
            return
        if not await self._drain_others(queue):
            return
        if all(waiter.done() for waiter in queue.enqueued_at):
            await asyncio.sleep(0)  # all were cancelled just now, and leave the queue in this step
            return
        self._activating = queue, monotonic()
        try:
            for work in self._before_swaps:
                await work()
            await self._models.activate(queue.model_id, drain_seconds=monotonic() - began)
            self._backoffs.loaded(queue.model_id)
            if self._models.address(queue.model_id) is None:
                message = f"{queue.model_id} became ready and ended at once"
                raise EngineFailed(message, hint=f"mmd logs {queue.model_id}   # see why")
        except Exception as error:  # noqa: BLE001 - of any kind: raised, and logged, in the waiting requests
            self._fail(queue, error)
        else:
            self._admitted.end_slice()  # its slice begins now, even if it had the GPU before
            self._grant(queue)
        finally:
            self._activating = None
            self._changes.notify()

    async def _drain_others(self, queue: ModelQueue) -> bool:
        """Wait for responses of other models. Return whether it is still this model's turn."""
        deadline = monotonic() + self._limits.drain_seconds
        while others := self._admitted.others(queue.model_id):
            if monotonic() >= deadline:
                _log.warning("swapping to %s although responses of %s still run", queue.model_id, ", ".join(others))
                return True
            await self._changes.wait(deadline)
            if not self._queues or self._decide() != StartSwap(queue.model_id):
                return False
        return True

    def _grant(self, queue: ModelQueue) -> None:
        address = self._models.address(queue.model_id)
        assert address is not None
        for waiter in self._take_waiters(queue):
            self._admitted.begin(queue.model_id)
            waiter.set_result(address)

    def _fail(self, queue: ModelQueue, error: Exception) -> None:
        if isinstance(error, EngineFailed):
            self._backoffs.failed(queue.model_id, error)
        for waiter in self._take_waiters(queue):
            waiter.set_exception(error)

    def _refuse_all(self, error: MmdError) -> None:
        for queue in tuple(self._queues.values()):
            self._fail(queue, error)
        if self._activating is not None:
            self._fail(self._activating[0], error)

    def _take_waiters(self, queue: ModelQueue) -> list[asyncio.Future[str]]:
        """Remove a queue, and return its requests that still wait."""
        if self._queues.get(queue.model_id) is queue:
            del self._queues[queue.model_id]
        return [waiter for waiter in queue.enqueued_at if not waiter.done()]

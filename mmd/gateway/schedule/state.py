"""The scheduler as a state machine without I/O: events and the time go in, effects come out. design.md has its table.

`plan.queue` decides; this module keeps what it decides on, and turns its decisions into effects. It reads `ModelsView`,
which answers from memory, and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mmd.errors import EngineFailed, GpuPinned, PlacementChanged, TryLater
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule import events as event_types
from mmd.gateway.schedule.admitted import Admitted
from mmd.gateway.schedule.backoffs import LoadBackoffs
from mmd.gateway.schedule.events import Admit, CutResponses, Effect, Event, Prepare, Refuse, StartSwap, WakeAt
from mmd.gateway.schedule.model_queue import ModelQueue, Waiter
from mmd.gateway.schedule.models import ModelsView
from mmd.gateway.schedule.queue_status import InFlight, QueuePosition, QueueStatus, QueueTurn
from mmd.gateway.schedule.unloads import Unloads, Uses
from mmd.plan import queue as plan
from mmd.plan.expected_wait import ExpectedWait, SwapProgress, expected_waits
from mmd.plan.placement.occupancy import Use
from mmd.plan.queue import Forecast, QueueLimits, Step, Turn

# How often a swap may find that its placement has changed before its requests fail.
_MAX_PLACEMENT_CHANGES = 3


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap that has begun: the model is being loaded."""

    forecast: Forecast
    began: float


@dataclass(slots=True)
class _Drain:
    """A swap that waits for running responses of its leavers."""

    since: float
    leavers: frozenset[str] = frozenset()


class SchedulerState:
    """The queues, the requests in flight, the swaps and the unloads. `step` alone changes them, but for `acquire`."""

    def __init__(self, view: ModelsView, limits: Limits) -> None:
        self._view = view
        self._limits = limits
        self._queue_limits = QueueLimits(limits.max_wait_seconds, limits.min_residency_seconds)
        self.queues: dict[str, ModelQueue] = {}  # without empty ones
        self.admitted = Admitted()
        self.swaps: dict[str, Swap] = {}
        self.unloads = Unloads()
        self.closed: frozenset[str] = frozenset()  # admit no request, although they may be resident
        self.is_paused = False  # admits no request, begins no swap
        self._drains: dict[str, _Drain] = {}
        self._backoffs = LoadBackoffs()
        self._tickets: dict[int, str] = {}
        self._waiting_bytes = 0
        self._seen_since: dict[str, float] = {}  # models that hold memory
        self._turns: tuple[Turn, ...] = ()
        self._wake_at = math.inf
        self._effects: list[Effect] = []

    # -- events

    def step(self, event: Event, now: float) -> list[Effect]:
        """Apply an event, and return what must be done now."""
        if self._apply(event, now):
            self._look(now)
            self._act(now)
        return self._taken()

    def fail(self, error: Exception) -> list[Effect]:
        """Refuse the requests that wait, after an exception in `step`; return that and what was decided before it.

        The requests of a swap under way are answered at its end.
        """
        for name in self.queues.keys() - self.swaps.keys():
            self._refuse_all(self.queues[name], error)
        self._drains.clear()
        self._turns = ()
        self.closed = self._excluded()
        return self._taken()

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _apply(self, event: Event, now: float) -> bool:
        """Return whether a decision may be different after the event."""
        match event:
            case event_types.Arrived(waiter):
                return self._arrived(waiter, now)
            case event_types.Left(ticket):
                return self._left(ticket)
            case event_types.Released(model_id):
                self.admitted.end(model_id, now)
                return model_id not in self.admitted and bool(self.queues or self.unloads.pending)
            case event_types.Prepared(model_id, error):
                if (queue := self.queues.get(model_id)) is not None:
                    queue.is_prepared = True
                    if error is not None:
                        self._refuse_all(queue, error)
            case event_types.SwapEnded(model_id, error):
                self._swap_ended(model_id, error, now)
            case event_types.SwapDropped(model_id):
                self.swaps.pop(model_id, None)
            case event_types.Changed():
                self._wake_at = math.inf
            case event_types.Paused():  # the tasks of swaps and preparations are cancelled
                self.is_paused = True
                self.swaps.clear()
                self._drains.clear()
                for queue in self.queues.values():
                    queue.asked_to_prepare = False
            case event_types.Resumed():
                self.is_paused = False
            case event_types.Closed(error):
                for queue in tuple(self.queues.values()):
                    self._refuse_all(queue, error)
            case event_types.UnloadAsked():
                self.unloads.add(event)
            case event_types.UnloadEnded(key):
                self.unloads.discard(key)
        return True

    def _arrived(self, waiter: Waiter, now: float) -> bool:
        model_id = waiter.model_id
        error = self._refusal(waiter, now)
        if error is not None:
            self._effects.append(Refuse(waiter.ticket, error))
            return False
        queue = self.queues.get(model_id)
        is_new = queue is None
        if queue is None:
            queue = self.queues[model_id] = ModelQueue(model_id, now)
        queue.add(waiter, now)
        self._tickets[waiter.ticket] = model_id
        self._waiting_bytes += waiter.body_bytes
        return is_new or waiter.interactive or waiter.force_reload

    def _left(self, ticket: int) -> bool:
        model_id = self._tickets.pop(ticket, None)
        if model_id is None:
            return False  # it was admitted or refused in the same moment
        queue = self.queues[model_id]
        waiter = queue.discard(ticket)
        self._waiting_bytes -= waiter.body_bytes
        if not queue.waiters:
            del self.queues[model_id]
        return waiter.interactive or not queue.waiters

    def _swap_ended(self, model_id: str, error: Exception | None, now: float) -> None:
        swap, queue = self.swaps.pop(model_id, None), self.queues.get(model_id)
        if swap is None:
            return  # paused meanwhile
        if error is None:
            self._backoffs.loaded(model_id)
            self.admitted.resident_since[model_id] = now
            if queue is not None:
                self._grant(queue, now)
            return
        if isinstance(error, EngineFailed):
            self._backoffs.failed(model_id, error, now)
        if queue is None:
            return
        if isinstance(error, PlacementChanged) and queue.placement_changes < _MAX_PLACEMENT_CHANGES:
            queue.placement_changes += 1
            queue.is_prepared = queue.asked_to_prepare = False  # by what the machine has now
        else:
            self._refuse_all(queue, error)

    # -- admission

    def _refusal(self, waiter: Waiter, now: float) -> Exception | None:
        model_id = waiter.model_id
        if not waiter.interactive and self._view.address(model_id) is None:
            error = self._backoffs.refusal(model_id, now)
            if error is not None:
                return error
        count = len(self._tickets)
        has_room = not count or self._waiting_bytes + waiter.body_bytes <= self._limits.waiting_bytes
        if has_room and count < self._limits.max_waiting:
            return None
        message = f"the queue is full: {count} requests are waiting"
        retry_after_seconds = plan.retry_after_seconds(self._expected(model_id, now).seconds)
        return TryLater(message, hint="mmd status   # what they wait for", retry_after_seconds=retry_after_seconds)

    def _grant(self, queue: ModelQueue, now: float) -> None:
        self.admitted.resident_since.setdefault(queue.model_id, now)
        for ticket in self._removed(queue):
            self.admitted.begin(queue.model_id)
            self._effects.append(Admit(ticket, queue.model_id))

    def _refuse_all(self, queue: ModelQueue, error: Exception) -> None:
        self._effects += [Refuse(ticket, error) for ticket in self._removed(queue)]

    def _removed(self, queue: ModelQueue) -> list[int]:
        """Remove a queue, and return its tickets in order."""
        del self.queues[queue.model_id]
        for ticket, (waiter, _) in queue.waiters.items():
            del self._tickets[ticket]
            self._waiting_bytes -= waiter.body_bytes
        return list(queue.waiters)

    # -- decisions

    def _look(self, now: float) -> None:
        """Take in which models hold memory: the slice of a model that was unloaded has ended."""
        holders = self._view.holders()
        self._seen_since = {model_id: self._seen_since.get(model_id, now) for model_id in holders}
        gone = self.admitted.resident_since.keys() - holders
        for model_id in gone - self.admitted.counts.keys():
            del self.admitted.resident_since[model_id]

    def _act(self, now: float) -> None:
        wakes = [self.unloads.act(self._effects, self._uses(), now)]
        decisions = plan.Decisions((), frozenset(), math.inf)
        if self.is_paused:
            order = plan.in_order(list(self._lines(now)))
            self._turns = tuple(Turn(line.model_id, Step.WAIT, is_blocked=True) for line in order)
        else:
            if self.queues:
                decisions = self._decide(now)
            self._turns = decisions.turns
            wakes += [decisions.until, *(self._carry_out(turn, now) for turn in decisions.turns)]
        self.closed = decisions.closed | self._excluded()
        for name in self._drains.keys() - {turn.model_id for turn in self._turns if turn.step is Step.SWAP}:
            del self._drains[name]
        if (wake_at := min(wakes)) != self._wake_at:
            self._wake_at = wake_at
            self._effects.append(WakeAt(wake_at))

    def _uses(self) -> Uses:
        return Uses(
            answering=self.admitted.counts.keys(),
            waited_for=self.queues.keys(),
            swapping=self._swapping(),
            is_paused=self.is_paused,
        )

    def _swapping(self) -> frozenset[str]:
        """Return the models that are being loaded, and those that leave for them."""
        return frozenset(one for name, swap in self.swaps.items() for one in (name, *swap.forecast.leavers))

    def _excluded(self) -> frozenset[str]:
        """Return the models that admit no request, whatever is decided."""
        return self._swapping() | self.unloads.models

    def _decide(self, now: float) -> plan.Decisions:
        swaps = {name: swap.forecast for name, swap in self.swaps.items()}
        excluded = self._excluded()
        residents = [self._resident(name) for name in self._seen_since if name not in excluded]
        view = plan.QueueView(list(self._lines(now)), residents, swaps, self.unloads.models)
        return plan.decide(view, now, self._queue_limits, self._view.forecast)

    def _lines(self, now: float) -> Iterator[plan.WaitingModel]:
        for name, queue in self.queues.items():
            drain = self._drains.get(name)
            yield plan.WaitingModel(
                name,
                queue.since,
                self._swap_seconds(name),
                interactive=queue.interactive > 0,
                force_reload=queue.force_reload,
                is_prepared=queue.is_prepared,
                cuts=queue.cutting > 0 or (drain is not None and self._drained_by(drain) <= now),
                draining=drain.leavers if drain is not None else frozenset(),
            )

    def _resident(self, name: str) -> plan.ResidentModel:
        admitted = self.admitted
        idle_since = admitted.idle_in_slice_since(name)
        return plan.ResidentModel(
            name,
            admitted.resident_since.get(name, -math.inf),
            idle_since,
            self._swap_seconds(name),
            last_used=max(self._seen_since[name], -math.inf if idle_since is None else idle_since),
            pinned=name in self._view.pinned(),
            is_ready=self._view.address(name) is not None,
        )

    def _swap_seconds(self, model_id: str) -> float:
        return self._view.expected_seconds(model_id) or 0.0

    def _drained_by(self, drain: _Drain) -> float:
        return drain.since + self._limits.drain_seconds

    def _carry_out(self, turn: Turn, now: float) -> float:
        """Carry out one decision; return when to look again."""
        queue = self.queues[turn.model_id]
        match turn.step:
            case Step.GRANT:
                self._grant(queue, now)
            case Step.SWAP:
                return self._swap(queue, turn.forecast, now)
            case Step.REFUSE_PINNED:
                self._refuse_all(queue, _pinned_error(queue.model_id, turn.forecast.leavers))
            case Step.WAIT if not (queue.is_prepared or queue.asked_to_prepare):
                queue.asked_to_prepare = True
                self._effects.append(Prepare(queue.model_id))
        return math.inf

    def _swap(self, queue: ModelQueue, forecast: Forecast, now: float) -> float:
        """Begin a swap if its leavers' responses have ended or may be cut."""
        name = queue.model_id
        drain = self._drains.setdefault(name, _Drain(now))
        drain.leavers = forecast.leavers
        answering = forecast.leavers & self.admitted.counts.keys()
        if answering:
            drained_by = now if queue.cutting else self._drained_by(drain)
            if now < drained_by:
                return drained_by
            limit_seconds = None if queue.cutting else self._limits.drain_seconds
            self._effects.append(CutResponses(answering, name, limit_seconds, requeues=limit_seconds is None))
        del self._drains[name]
        self.swaps[name] = Swap(forecast, now)
        for one in forecast.leavers:
            self.admitted.resident_since.pop(one, None)
        self._effects.append(StartSwap(name, forecast, now - drain.since))
        return math.inf

    # -- what is shown

    @property
    def waiting_count(self) -> int:
        return len(self._tickets)

    def is_in_use(self, model_id: str) -> bool:
        return model_id in self.admitted or model_id in self.queues

    def uses(self, now: float) -> dict[str, Use]:
        """Return how requests use the models that hold memory; one of which none was seen is used since then."""
        pinned, found = self._view.pinned(), {}
        for name in self._view.holders():
            in_use = name in self.admitted
            idle_since = self.admitted.idle_since(name)
            last_used = now if in_use else self._seen_since.get(name, now) if idle_since is None else idle_since
            found[name] = Use(last_used, in_use=in_use, pinned=name in pinned)
        return found

    def position(self, model_id: str, now: float) -> QueuePosition:
        """Return the position of a request that waits for this model now."""
        order = [turn.model_id for turn in self._turns if turn.model_id in self.queues]
        turn = order.index(model_id) + 1 if model_id in order else len(order) + 1
        wait = self._expected(model_id, now)
        return QueuePosition(turn, max(turn, len(order)), wait.seconds, self._in_flight(wait.waits_for))

    def status(self, now: float) -> QueueStatus:
        waits = self._expected_waits(now)
        turns = (
            QueueTurn(
                queue.model_id,
                waiting=len(queue.waiters),
                waited_seconds=round(now - queue.since, 3),
                expected_seconds=waits[queue.model_id].seconds,
                waits_for=self._in_flight(waits[queue.model_id].waits_for),
            )
            for turn in self._turns
            if (queue := self.queues.get(turn.model_id)) is not None
        )
        return QueueStatus(tuple(turns), self.admitted.status())

    def _in_flight(self, names: Collection[str]) -> tuple[InFlight, ...]:
        return tuple(InFlight(name, self.admitted.counts[name]) for name in names)

    def _expected(self, model_id: str, now: float) -> ExpectedWait:
        waits = self._expected_waits(now)
        if model_id in waits:
            return waits[model_id]
        seconds = [wait.seconds for wait in waits.values()]
        own_seconds = self._swap_seconds(model_id)
        known = [one for one in seconds if one is not None]
        if not own_seconds or len(known) < len(seconds):
            return ExpectedWait()
        return ExpectedWait(max(known, default=0.0) + own_seconds)

    def _expected_waits(self, now: float) -> dict[str, ExpectedWait]:
        progress = SwapProgress(
            swap_seconds={turn.model_id: self._swap_seconds(turn.model_id) for turn in self._turns},
            swapping_since={name: swap.began for name, swap in self.swaps.items()},
            drained_by={name: self._drained_by(drain) for name, drain in self._drains.items()},
            answering=self.admitted.counts,
        )
        return expected_waits(self._turns, progress, now)


def _pinned_error(model_id: str, pinned: Collection[str]) -> GpuPinned:
    names = ", ".join(sorted(pinned))
    are = "is" if len(pinned) == 1 else "are"
    message = f"{model_id} would replace {names}, which {are} pinned"
    return GpuPinned(message, hint=f"mmd activate {model_id}   # anyway; or: mmd sleep {min(pinned)}")

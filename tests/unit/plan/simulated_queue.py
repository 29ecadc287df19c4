"""Requests, swaps and answers in simulated time, with the gateway's scheduler in charge of any number of devices."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule import events
from mmd.gateway.schedule.model_queue import Waiter
from mmd.gateway.schedule.state import SchedulerState
from mmd.plan.placement.place import CannotPlace, Device, Occupant, Shape, Wanted, place
from mmd.plan.queue import Claims, Forecast, NoRoom
from mmd.plan.share import Share


@dataclass(frozen=True)
class SimulatedModel:
    shape: Shape
    swap_seconds: float = 0.0
    known: bool = True  # the scheduler knows how long its swap takes


@dataclass(eq=False)
class Asked:
    ticket: int
    model: str
    came: float
    answer_seconds: float
    interactive: bool = False
    let_in: float | None = None
    error: Exception | None = None
    has_left: bool = False
    was_cut: bool = False


@dataclass(frozen=True)
class Swapped:
    """A swap as it began."""

    at: float
    model: str
    leavers: frozenset[str]
    lines: Mapping[str, tuple[float, bool]]  # since when requests wait for a model, and whether one is interactive
    since: Mapping[str, float]  # of the leavers' slices
    idle_since: Mapping[str, float | None]


@dataclass
class Machine:
    """Devices, and what models hold of them. A leaver keeps its memory for a while after the swap has begun."""

    devices: tuple[Device, ...]
    models: Mapping[str, SimulatedModel]
    one_at_a_time: bool = False
    held: dict[str, Share] = field(default_factory=dict)  # by resident models
    coming: dict[str, tuple[Share, Share]] = field(default_factory=dict)  # the model's share, and that of its swap
    leaving: set[str] = field(default_factory=set)  # they still answer for a moment after their swap has begun
    pinned_models: set[str] = field(default_factory=set)
    placed: dict[str, Share] = field(default_factory=dict)  # where the last forecast placed a model

    def address(self, model_id: str) -> str | None:
        return model_id if model_id in self.held or model_id in self.leaving else None

    def expected_seconds(self, model_id: str) -> float | None:
        model = self.models[model_id]
        return model.swap_seconds if model.known else None

    def holders(self) -> Collection[str]:
        return {*self.held, *self.coming}

    def pinned(self) -> Collection[str]:
        return self.pinned_models

    def forecast(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        if self.one_at_a_time:
            if claimed.keys() - set(present):
                return NoRoom("one at a time")
            return Forecast(frozenset(present), {device.id: device.capacity_mib for device in self.devices})
        own = {**{name: swap for name, (_, swap) in self.coming.items()}, **self.held}
        shares = {name: claimed.get(name) or own.get(name, {}) for name in (*present, *claimed)}
        occupants = [
            Occupant(name, share, last_used=present.index(name) if name in present else 0, pinned=name not in present)
            for name, share in shares.items()
        ]
        found = place([Wanted(model_id, (self.models[model_id].shape,))], occupants, self.devices)
        if isinstance(found, CannotPlace):
            return NoRoom(found.why)
        leavers = frozenset((*found.sleep, *found.end))
        self.placed[model_id] = found.where[model_id]
        return Forecast(leavers, envelope(found.where[model_id], [shares[name] for name in leavers]))

    def used_mib(self) -> dict[str, int]:
        return total([*self.held.values(), *(swap for _, swap in self.coming.values())])

    def begin(self, model_id: str, forecast: Forecast) -> None:
        """Begin a swap. Raises OverCommitted if its memory is not free, or if it meets another swap on a device."""
        leaving = [self.held.pop(name) for name in forecast.leavers]
        self.leaving |= forecast.leavers
        share = self._room_for(model_id, forecast.devices)
        if share is None:
            raise OverCommitted(f"{model_id}: no room beside {self.used_mib()}")
        swap = envelope(share, leaving)
        for name, (_, other) in self.coming.items():
            if not other.keys().isdisjoint(swap):
                raise OverCommitted(f"{model_id} and {name} are loaded on one device")
        self.coming[model_id] = share, swap

    def end(self, model_id: str, *, fails: bool) -> None:
        share, _ = self.coming.pop(model_id, ({}, {}))
        self.leaving.discard(model_id)
        if share and not fails:
            self.held[model_id] = share

    def _room_for(self, model_id: str, devices: Collection[str]) -> Share | None:
        """Return where the model is placed on these devices, beside what is held now, or None."""
        if self.one_at_a_time:
            return {"all": 1} if not self.holders() else None
        shares = {**self.held, **{name: swap for name, (_, swap) in self.coming.items()}}
        others = [Occupant(name, share, pinned=True) for name, share in shares.items()]
        allowed = [device for device in self.devices if not devices or device.id in devices]
        found = place([Wanted(model_id, (self.models[model_id].shape,))], others, allowed)
        return None if isinstance(found, CannotPlace) else found.where[model_id]


def total(shares: Sequence[Share]) -> dict[str, int]:
    devices = {device for share in shares for device in share}
    return {device: sum(share.get(device, 0) for share in shares) for device in devices}


def envelope(share: Share, leavers: Sequence[Share]) -> Share:
    """Return the most that is held of each device while the leavers make room for a model."""
    before = total(leavers)
    return {device: max(share.get(device, 0), before.get(device, 0)) for device in {*share, *before}}


class OverCommitted(AssertionError): ...


@dataclass(frozen=True)
class _HasLeft:
    """The leavers of a swap have freed their memory."""

    models: frozenset[str]


@dataclass(frozen=True)
class _HasUnloaded:
    """An unload without a swap has ended."""

    key: int


_MAX_STEPS = 5000
_Happening = events.Event | _HasLeft | _HasUnloaded | Asked


class Simulation:
    """A machine whose requests, swaps and responses take the time that they take."""

    def __init__(self, machine: Machine, limits: Limits) -> None:
        self.machine = machine
        self.limits = limits
        self.now = 0.0
        self.state = SchedulerState(machine, limits)
        self.waiting: dict[int, Asked] = {}
        self.answering: dict[int, Asked] = {}
        self.served: list[Asked] = []
        self.refused: list[Asked] = []
        self.swaps: list[Swapped] = []
        self.cut: list[tuple[float, frozenset[str]]] = []
        self.unloads: dict[int, tuple[str, float]] = {}
        self.pauses: list[tuple[float, float]] = []
        self._steps = 0
        self.failing: dict[str, Exception] = {}  # how the next swap of a model ends
        self._numbers = count()
        self._events: list[tuple[float, int, _Happening]] = []
        self._wake_at = math.inf
        self._idle_since: dict[str, float] = {}
        self._since: dict[str, float] = {}

    # -- what clients do

    def ask(self, model: str, answer_seconds: float, *, interactive: bool = False, cuts: bool = False) -> Asked:
        asked = Asked(next(self._numbers), model, self.now, answer_seconds, interactive)
        self.waiting[asked.ticket] = asked
        if not interactive and self._is_open(model):
            self.state.admitted.begin(model)
            self.state.admitted.resident_since.setdefault(model, self.now)
            self._let_in(asked.ticket)
        else:
            self._feed(events.Arrived(Waiter(asked.ticket, model, interactive=interactive, cuts=cuts)))
        return asked

    def pause(self) -> None:
        """Swaps under way are cancelled: a suspend takes the models that are loading off the GPU."""
        self.pauses.append((self.now, math.inf))
        for model in tuple(self.machine.coming):
            self.machine.end(model, fails=True)
        self.machine.leaving.clear()
        self._events = [one for one in self._events if not isinstance(one[2], events.SwapEnded)]
        heapq.heapify(self._events)
        self._feed(events.Paused())

    def resume(self) -> None:
        self.pauses[-1:] = [(begin, self.now) for begin, _ in self.pauses[-1:]]
        self._feed(events.Resumed())

    @property
    def next_wake_at(self) -> float:
        """When the scheduler looks again, or something ends."""
        return min(self._wake_at, self._events[0][0] if self._events else math.inf)

    def leave(self, asked: Asked) -> None:
        if self.waiting.pop(asked.ticket, None) is not None:
            asked.has_left = True
            self._feed(events.Left(asked.ticket))

    # -- time

    def run_until(self, end: float) -> None:
        while (at := min(self._wake_at, self._events[0][0] if self._events else math.inf)) <= end and at < math.inf:
            self._steps += 1
            assert self._steps < _MAX_STEPS, "the scheduler wakes without end"
            self.now = max(self.now, at)
            if self._events and self._events[0][0] <= self.now:
                self._happen(heapq.heappop(self._events)[2])
            else:
                self._wake_at = math.inf
                self._feed(events.Changed())
        self.now = max(self.now, end) if end < math.inf else self.now

    def run_out(self) -> None:
        """Run until no request waits or runs."""
        self.run_until(math.inf)

    def _at(self, seconds: float, event: _Happening) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def _happen(self, event: _Happening) -> None:
        match event:
            case Asked():  # its response ends, or has been cut before
                if self.answering.pop(event.ticket, None) is None:
                    return
                if all(asked.model != event.model for asked in self.answering.values()):
                    self._idle_since[event.model] = self.now
                event = events.Released(event.model)
            case _HasUnloaded(key):
                model, _ = self.unloads.pop(key)
                self.machine.held.pop(model, None)
                event = events.UnloadEnded(key)
            case _HasLeft(models):
                self.machine.leaving -= models
                event = events.Changed()
            case events.SwapEnded(model):
                error = self.failing.pop(model, None)
                self.machine.end(model, fails=error is not None)
                self._since[model] = self.now
                event = events.SwapEnded(model, error)
            case _:
                pass
        self._feed(event)

    # -- what the scheduler asks for

    def _feed(self, event: events.Event) -> None:
        for effect in self.state.step(event, self.now):
            self._carry_out(effect)
        self.check_capacity()

    def _carry_out(self, effect: events.Effect) -> None:
        match effect:
            case events.Admit(ticket, _):
                self._let_in(ticket)
            case events.Refuse(ticket, error):
                asked = self.waiting.pop(ticket)
                asked.error = error
                self.refused.append(asked)
            case events.Prepare(model):
                self._at(0.0, events.Prepared(model))
            case events.StartSwap():
                self._begin(effect)
            case events.CutResponses(models):
                assert effect.limit_seconds is None or self.now >= effect.limit_seconds
                self.cut.append((self.now, models))
                self.abort(models)
            case events.WakeAt(at):
                self._wake_at = at
            case events.BeginUnload(key):
                self.unload_begins(key)
            case events.DeclineUnload(key):
                del self.unloads[key]

    def _begin(self, swap: events.StartSwap) -> None:
        machine, model = self.machine, swap.model_id
        assert not self.state.is_paused
        assert not swap.forecast.leavers & machine.pinned_models or self.state.queues[model].interactive
        lines = {name: (queue.since, queue.interactive > 0) for name, queue in self.state.queues.items()}
        answering = {asked.model for asked in self.answering.values()}
        idle_since = {
            name: None if name in answering else max(self._idle_since.get(name, -1e9), self._since.get(name, -1e9))
            for name in swap.forecast.leavers
        }
        since = {name: self._since.get(name, -math.inf) for name in swap.forecast.leavers}
        self.swaps.append(Swapped(self.now, model, swap.forecast.leavers, lines, since, idle_since))
        assert not [asked for asked in self.answering.values() if asked.model in swap.forecast.leavers]
        machine.begin(model, swap.forecast)
        self._at(machine.models[model].swap_seconds / 2, _HasLeft(swap.forecast.leavers))
        self._at(machine.models[model].swap_seconds, events.SwapEnded(model))

    def abort(self, models: Collection[str]) -> None:
        """End the running responses of these models, as the gateway does when they are cut."""
        for ticket, asked in tuple(self.answering.items()):
            if asked.model in models:
                del self.answering[ticket]
                asked.was_cut = True
                self._idle_since[asked.model] = self.now
                self._at(0.0, events.Released(asked.model))

    def ask_to_unload(self, model: str, *, only_idle: bool, limit_seconds: float = 0.0, seconds: float = 1.0) -> None:
        key = next(self._numbers)
        self.unloads[key] = model, seconds
        asked = events.UnloadAsked(
            key, frozenset({model}), only_idle=only_idle, limit_seconds=limit_seconds, reason="mmd sleep"
        )
        self._feed(asked)

    def unload_begins(self, key: int) -> None:
        model, seconds = self.unloads[key]
        assert not [asked for asked in self.answering.values() if asked.model == model]
        self._at(seconds, _HasUnloaded(key))

    def _is_open(self, model: str) -> bool:
        is_closed = model in self.state.closed or self.state.is_paused
        return self.machine.address(model) is not None and not is_closed

    def _let_in(self, ticket: int) -> None:
        asked = self.waiting.pop(ticket)
        assert asked.model in self.machine.held
        asked.let_in = self.now
        self._since.setdefault(asked.model, self.now)
        self.served.append(asked)
        self.answering[ticket] = asked
        self._at(asked.answer_seconds, asked)

    def check_capacity(self) -> None:
        used = self.machine.used_mib()
        if not self.machine.one_at_a_time and any(
            used.get(one.id, 0) > one.capacity_mib for one in self.machine.devices
        ):
            raise OverCommitted(f"at {self.now}: {used}")


@dataclass(frozen=True)
class Result:
    answered: int
    evictions: int
    mean_seconds: float
    p95_seconds: float
    longest_seconds: float


def replay(machine: Machine, trace: Sequence[tuple[float, str, float]], limits: Limits) -> Result:
    """Run a trace of (when, model, seconds of the response)."""
    simulation = Simulation(machine, limits)
    for at, model, seconds in trace:
        simulation.run_until(at)
        simulation.ask(model, seconds)
    simulation.run_out()
    assert not simulation.waiting
    assert not simulation.refused
    waits = sorted(one.let_in - one.came for one in simulation.served if one.let_in is not None)
    evictions = sum(bool(swap.leavers) for swap in simulation.swaps)
    return Result(len(waits), evictions, statistics.mean(waits), waits[int(len(waits) * 0.95)], waits[-1])


def mixed_trace(
    weights: Mapping[str, float], *, rate: float, seconds: float, seed: int
) -> list[tuple[float, str, float]]:
    draw, at, trace = random.Random(seed), 0.0, []
    while at < seconds:
        at += draw.expovariate(rate)
        trace.append((at, draw.choices(list(weights), list(weights.values()))[0], draw.uniform(0.2, 3.0)))
    return trace


def gpus(*capacities_mib: int) -> tuple[Device, ...]:
    return tuple(Device(f"gpu{number}", capacity) for number, capacity in enumerate(capacities_mib))


def whole(size_mib: int, swap_seconds: float) -> SimulatedModel:
    return SimulatedModel(Shape(1, size_mib), swap_seconds)


@dataclass(frozen=True)
class Scenario:
    """A machine and its load."""

    name: str
    devices: tuple[Device, ...]
    models: Mapping[str, SimulatedModel]
    weights: Mapping[str, float]
    rate: float

    def machine(self, *, one_at_a_time: bool = False) -> Machine:
        return Machine(self.devices, self.models, one_at_a_time)


SCENARIOS = (
    Scenario(
        "24 GB: chat 14, embed 1, rerank 1.5",
        gpus(24000),
        {"chat": whole(14000, 8), "embed": whole(1000, 2), "rerank": whole(1500, 2)},
        {"chat": 5, "embed": 3, "rerank": 2},
        0.8,
    ),
    Scenario(
        "24 GB: two chats of 14, embed 1",
        gpus(24000),
        {"c1": whole(14000, 8), "c2": whole(14000, 8), "embed": whole(1000, 2)},
        {"c1": 4, "c2": 4, "embed": 4},
        0.8,
    ),
    Scenario(
        "2 x 24: four of 14, embed",
        gpus(24000, 24000),
        {**{f"c{number}": whole(14000, 8) for number in range(1, 5)}, "embed": whole(1000, 2)},
        {"c1": 4, "c2": 3, "c3": 2, "c4": 2, "embed": 4},
        0.8,
    ),
    Scenario(
        "2 x 24: one split over both, two of 10",
        gpus(24000, 24000),
        {"big": SimulatedModel(Shape(2, 20000), 20.0), "s1": whole(10000, 6), "s2": whole(10000, 6)},
        {"big": 1, "s1": 3, "s2": 3},
        0.5,
    ),
)


def table(seed: int = 1) -> str:
    """Return the scenarios' waits as a table: one model at a time, and what fits beside the others."""
    rows = ["| machine | rule | requests | mean | p95 | longest | evictions |", "|---|---|---|---|---|---|---|"]
    for scenario in SCENARIOS:
        trace = mixed_trace(scenario.weights, rate=scenario.rate, seconds=1800, seed=seed)
        for one_at_a_time in (True, False):
            limits = Limits(max_wait_seconds=60, min_residency_seconds=10)
            result = replay(scenario.machine(one_at_a_time=one_at_a_time), trace, limits)
            rows.append(
                f"| {scenario.name} | {'one' if one_at_a_time else 'many'} | {result.answered} "
                f"| {result.mean_seconds:.2f} | {result.p95_seconds:.1f} | {result.longest_seconds:.1f} "
                f"| {result.evictions} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    import sys

    print(table(int(sys.argv[1]) if len(sys.argv) > 1 else 1))

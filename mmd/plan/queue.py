"""The scheduling policy: which requests are admitted and which swaps begin, for any number of resident models.

The requests that wait for one model share one turn. Turns are in the order of their oldest request, interactive ones
first. A turn claims the memory that its model will hold, and its leavers: the models that must be unloaded for it. A
later turn may use neither, so it overtakes an earlier one only if it does not delay it. So no turn waits for ever.

A leaver keeps its memory for a slice of time, so that its own requests of that time do not cost two more swaps: A B A B
becomes A A B B. The slice ends early if the turn has waited long enough, if the leaver has no more requests, or if a
user activates a model. After the slice, no request is admitted to the leaver, its running responses finish, and the
swap begins. A swap without leavers begins at once.

Times are seconds on any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from mmd.plan.share import RAM, Share

# Most clients send their next request right after a response.
_MAX_LINGER_SECONDS = 2.0
_FIRST_BACKOFF_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 300.0
# Minimum and maximum of the Retry-After that a rejected client gets.
_RETRY_SECONDS = (1, 300)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long requests for a resident model may overtake others."""

    # Requests for a model that must leave are admitted only while every waiting request can still be served within
    # this time. This assumes that running responses end at once, and that swaps take as long as recent ones.
    max_wait_seconds: float
    min_residency_seconds: float  # minimum time that a busy model keeps its memory


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a model would be loaded, and which models would be unloaded for it.

    `claim` is the most that the model and its leavers hold of each device at any moment before, during or after the
    swap. So a model that fits beside the claim fits at every moment.
    """

    leavers: frozenset[str] = frozenset()
    claim: Share = field(default_factory=dict)

    @property
    def devices(self) -> frozenset[str]:
        """The devices on which the swap loads or unloads a model."""
        return frozenset(self.claim)


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The model does not fit, even if all models are unloaded that may be."""

    why: str


Claims = Mapping[str, Share | None]  # None: the share that the model's units name, if any


class Forecaster(Protocol):
    """Predicts where a model would be placed, and which models would be unloaded for it.

    `present` are the models that may be unloaded, in the order in which they are. `claimed` has the shares of models
    that are not loaded yet or must not be unloaded. Models in neither do not count.
    """

    def __call__(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom: ...


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """The requests that wait for one model."""

    model_id: str
    since: float  # when the oldest of them arrived
    swap_seconds: float = 0.0  # how long loading it took recently; 0 if unknown
    interactive: bool = False  # a user activates this model, without a request to it
    force_reload: bool = False  # it counts as resident, but its engine refuses connections
    is_prepared: bool = True  # a forecast can be made for it
    cuts: bool = False  # its swap does not wait for running responses
    draining: frozenset[str] = frozenset()  # the models whose responses it waits for since an earlier decision


@dataclass(frozen=True, slots=True)
class ResidentModel:
    """A model that holds memory, and is neither loaded nor unloaded by this scheduler at the moment."""

    model_id: str
    since: float  # when it became resident
    idle_since: float | None  # when its last response ended; None while one is running
    swap_seconds: float = 0.0  # how long loading it again takes; 0 if unknown
    last_used: float = -math.inf  # the least recently used leaves first
    pinned: bool = False
    is_ready: bool = True  # False: another process is loading it


@dataclass(frozen=True, slots=True)
class QueueView:
    """All that a decision depends on."""

    waiting: Sequence[WaitingModel]
    residents: Sequence[ResidentModel]
    swaps: Mapping[str, Forecast] = field(default_factory=dict)  # that have begun, by the model that is loaded
    unloading: Collection[str] = ()  # models that are put to sleep or stopped without a swap


class Step(StrEnum):
    """What happens to the requests that wait for a model."""

    GRANT = "grant"  # admit them: it is resident
    LOADING = "loading"  # its swap has begun
    SWAP = "swap"  # admit no request to its leavers, and load it when their responses have ended
    WAIT = "wait"
    REFUSE_PINNED = "refuse_pinned"  # it fits only if pinned models are unloaded


@dataclass(frozen=True, slots=True)
class Turn:
    """The decision for one model that requests wait for."""

    model_id: str
    step: Step
    forecast: Forecast = Forecast()
    begins_at: float = -math.inf  # the end of its leavers' slices
    after: frozenset[str] = frozenset()  # models of earlier turns that are loaded first and then unloaded for it
    is_blocked: bool = False  # it waits for the end of another load or unload


@dataclass(frozen=True, slots=True)
class Decisions:
    """The turns in order, the residents that admit no request, and when to decide again at the latest."""

    turns: tuple[Turn, ...]
    closed: frozenset[str]
    until: float


def decide(view: QueueView, now: float, limits: QueueLimits, forecast: Forecaster) -> Decisions:
    """Return what happens now to every waiting model."""
    forecast = _remembered(forecast)
    begins_by = {
        line.model_id: line.since + limits.max_wait_seconds - line.swap_seconds for line in in_order(view.waiting)
    }
    decisions = _Pass(view, now, limits, forecast, begins_by).decide()
    earlier = _with_successors(decisions.turns, begins_by, view.waiting)
    return decisions if earlier == begins_by else _Pass(view, now, limits, forecast, earlier).decide()


def in_order(waiting: Sequence[WaitingModel]) -> list[WaitingModel]:
    """Sort waiting models by turn: interactive ones first, then by the age of their oldest request."""
    return sorted(waiting, key=lambda one: (not one.interactive, one.since, one.model_id))


def slice_ends_at(resident: ResidentModel, line: WaitingModel, begins_by: float, limits: QueueLimits) -> float:
    """Return until when requests for a resident model are admitted although a waiting model needs its memory.

    `begins_by`: when the swap must begin so that all requests are served within the maximum wait.
    """
    if line.interactive:
        return -math.inf
    # Swapping away and back costs both times: with a slice as long, the GPU works at least half of the time.
    slice_seconds = max(limits.min_residency_seconds, line.swap_seconds + resident.swap_seconds)
    ends_at = min(resident.since + slice_seconds, begins_by)
    if resident.idle_since is not None:
        # Waiting half a swap for nothing costs less than an unnecessary swap.
        ends_at = min(ends_at, resident.idle_since + min(_MAX_LINGER_SECONDS, line.swap_seconds / 2))
    return ends_at


def _with_successors(
    turns: Sequence[Turn], begins_by: Mapping[str, float], waiting: Sequence[WaitingModel]
) -> dict[str, float]:
    """Return `begins_by`, with an earlier time for each swap that another one must follow."""
    swap_seconds = {line.model_id: line.swap_seconds for line in waiting}
    earlier = dict(begins_by)
    for turn in reversed(turns):
        for before in turn.after & earlier.keys():
            earlier[before] = min(earlier[before], earlier[turn.model_id] - swap_seconds[before])
    return earlier


def _remembered(forecast: Forecaster) -> Forecaster:
    """Return a forecaster that asks for each forecast once."""
    known: dict[object, Forecast | NoRoom] = {}

    def remembered(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        key = model_id, present, claims_key(claimed)
        if key not in known:
            known[key] = forecast(model_id, present=present, claimed=claimed)
        return known[key]

    return remembered


def claims_key(claimed: Claims) -> tuple[object, ...]:
    """Return claims as a hashable value."""
    return tuple(
        sorted((name, () if share is None else tuple(sorted(share.items()))) for name, share in claimed.items())
    )


class _Pass:
    """One pass over the turns in order, with the claims of the earlier ones."""

    def __init__(
        self,
        view: QueueView,
        now: float,
        limits: QueueLimits,
        forecast: Forecaster,
        begins_by: Mapping[str, float],
    ) -> None:
        self._view = view
        self._now = now
        self._limits = limits
        self._forecast = forecast
        self._begins_by = begins_by
        self._residents = {one.model_id: one for one in view.residents}
        self._fixed: dict[str, Share | None] = dict.fromkeys(view.unloading)
        self._claims: dict[str, Share | None] = {name: one.claim for name, one in view.swaps.items()}
        self._claimed_leavers = {name for one in view.swaps.values() for name in one.leavers}
        self._busy_devices = {name for one in view.swaps.values() for name in one.devices} - {RAM}
        self._closed: set[str] = set()
        self._until = math.inf

    def decide(self) -> Decisions:
        turns = tuple(self._turn(line) for line in in_order(self._view.waiting))
        return Decisions(turns, frozenset(self._closed), self._until)

    def _turn(self, line: WaitingModel) -> Turn:
        name = line.model_id
        if name in self._view.swaps:
            return Turn(name, Step.LOADING, self._view.swaps[name])
        if name in self._view.unloading:
            return Turn(name, Step.WAIT, is_blocked=True)
        resident = self._residents.get(name)
        if resident is not None and name not in self._closed:
            if resident.is_ready and not line.force_reload:
                self._residents[name] = replace(resident, idle_since=None)
                return Turn(name, Step.GRANT)
            self._claims[name] = None  # it is loaded where it is: again, or by another process
            return Turn(name, Step.SWAP)
        if not line.is_prepared:
            return Turn(name, Step.WAIT, is_blocked=True)
        found = self._found(line)
        return self._claim(line, found) if isinstance(found, Forecast) else self._claim_later(line)

    def _found(self, line: WaitingModel) -> Forecast | NoRoom:
        """Return the forecast for this model, given all earlier claims.

        A drain under way keeps its leavers, unless the leavers of a new forecast have no running response.
        """
        movable = self._movable(line)
        found = self._ask(line, movable, self._claims)
        if not line.draining or (isinstance(found, Forecast) and self._are_idle(found.leavers)):
            return found
        others = dict.fromkeys(name for name in movable if name not in line.draining)
        kept = self._ask(line, tuple(name for name in movable if name in line.draining), {**self._claims, **others})
        return kept if isinstance(kept, Forecast) else found

    def _claim(self, line: WaitingModel, forecast: Forecast) -> Turn:
        name, leavers = line.model_id, forecast.leavers
        begins_at = max((self._slice_ends_at(one, line) for one in leavers), default=-math.inf)
        self._claims[name] = forecast.claim
        self._claimed_leavers |= leavers
        # Loads on one device do not overlap: engines look at its free memory while they start.
        is_blocked = name in self._closed or not self._busy_devices.isdisjoint(forecast.devices)
        if self._now < begins_at:
            self._until = min(self._until, begins_at)
            return Turn(name, Step.WAIT, forecast, begins_at, is_blocked=is_blocked)
        self._closed |= leavers
        if is_blocked:
            return Turn(name, Step.WAIT, forecast, begins_at, is_blocked=True)
        if line.cuts or self._are_idle(leavers):
            self._busy_devices |= forecast.devices - {RAM}  # it begins now, otherwise after responses have ended
        return Turn(name, Step.SWAP, forecast, begins_at)

    def _claim_later(self, line: WaitingModel) -> Turn:
        """Claim memory that is free only when models of earlier turns have been loaded and unloaded again."""
        name = line.model_id
        found = self._ask(line, (*self._movable(line), *self._claims), self._claims)
        if isinstance(found, NoRoom):
            return self._refused(line)
        after = found.leavers & self._claims.keys()
        for one in after:
            del self._claims[one]  # the claim below covers it
        self._claims[name] = found.claim
        self._claimed_leavers |= found.leavers
        return Turn(name, Step.WAIT, found, math.inf, after)

    def _refused(self, line: WaitingModel) -> Turn:
        name, others = line.model_id, tuple(one for one in self._residents if one != line.model_id)
        if self._fixed and isinstance(self._ask(line, (*others, *self._view.unloading), {}), Forecast):
            return Turn(name, Step.WAIT, begins_at=math.inf, is_blocked=True)
        found = self._forecast(name, present=others, claimed={})
        leavers = found.leavers if isinstance(found, Forecast) else frozenset()
        pinned = leavers & {one.model_id for one in self._residents.values() if one.pinned}
        if pinned and not line.interactive:
            return Turn(name, Step.REFUSE_PINNED, Forecast(pinned))
        return Turn(name, Step.SWAP)  # it fits nowhere: its activation says why

    def _ask(self, line: WaitingModel, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        name = line.model_id
        pinned = {} if line.interactive else {one.model_id: None for one in self._residents.values() if one.pinned}
        return self._forecast(
            name,
            present=tuple(one for one in present if one != name),
            claimed={one: share for one, share in {**self._fixed, **pinned, **claimed}.items() if one != name},
        )

    def _movable(self, line: WaitingModel) -> tuple[str, ...]:
        """Return the resident models that may be unloaded for this model, in the order in which they are."""
        free = [
            one
            for one in self._residents.values()
            if one.model_id not in self._claimed_leavers
            and one.model_id not in self._claims
            and (line.interactive or not one.pinned)
        ]
        free.sort(key=lambda one: (one.pinned, one.idle_since is None, one.last_used, one.model_id))
        return tuple(one.model_id for one in free)

    def _are_idle(self, names: Collection[str]) -> bool:
        return all(self._residents[one].idle_since is not None for one in names)

    def _slice_ends_at(self, leaver: str, line: WaitingModel) -> float:
        return slice_ends_at(self._residents[leaver], line, self._begins_by[line.model_id], self._limits)


def retry_after_seconds(expected: float | None) -> int:
    """Return the Retry-After for a rejected client."""
    least, most = _RETRY_SECONDS
    return most // 10 if expected is None else min(most, max(least, math.ceil(expected)))


@dataclass(frozen=True, slots=True)
class Backoff:
    """A model that failed to load is not loaded again before `until`; the time doubles with each failure."""

    failures: int
    until: float

    @classmethod
    def after_failure(cls, previous: Backoff | None, now: float) -> Backoff:
        failures = previous.failures + 1 if previous else 1
        seconds = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
        return cls(failures, now + seconds)

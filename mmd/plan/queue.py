"""The scheduling policy: which model is served next while requests wait for models that cannot share the GPU.

The resident model keeps the GPU for a slice of time while other models are waiting, so that requests which arrive for
it meanwhile do not cost two more swaps: A B A B becomes A A B B. The slice ends early if a request has waited long
enough, if the resident model has no more requests, or if a user activates another model. After the slice no request
is admitted to the resident model, running responses finish, and the model whose request has waited longest is loaded;
all requests that wait for it share that swap. So each request is served after at most one turn of each other model.

Times are seconds on any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

# Most clients send their next request right after a response.
_MAX_LINGER_SECONDS = 2.0
_FIRST_BACKOFF_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 300.0
# Minimum and maximum of the Retry-After that a rejected client gets.
_RETRY_SECONDS = (1, 300)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long requests for the resident model may overtake others."""

    # Requests for the resident model are admitted first only while every waiting request can still be served within
    # this time. This assumes that running responses end at once, and that swaps take as long as recent ones.
    max_wait_seconds: float
    min_residency_seconds: float  # minimum time that a busy model keeps the GPU


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """The requests that wait for one model."""

    model_id: str
    since: float  # when the oldest of them arrived
    swap_seconds: float = 0.0  # how long loading it took recently; 0 if unknown
    interactive: bool = False  # a user activates this model, without a request to it


@dataclass(frozen=True, slots=True)
class Resident:
    """The model that has the GPU and accepts requests."""

    model_id: str
    since: float  # when it became resident
    idle_since: float | None  # when its last response ended; None while one is running
    swap_seconds: float = 0.0  # how long loading it again takes; 0 if unknown


@dataclass(frozen=True, slots=True)
class Grant:
    """Admit the requests that wait for the resident model."""

    model_id: str


@dataclass(frozen=True, slots=True)
class StartSwap:
    """Admit no request to the resident model; when its responses have ended, load this model."""

    model_id: str


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Do nothing before this time, unless a request arrives or ends."""

    until: float


Decision = Grant | StartSwap | WaitUntil


def decide(waiting: Sequence[WaitingModel], resident: Resident | None, now: float, limits: QueueLimits) -> Decision:
    """Return the next step. `waiting` must not be empty."""
    first = in_order(waiting)[0]
    if resident is None:
        return StartSwap(first.model_id)
    others = [one for one in waiting if one.model_id != resident.model_id]
    if first.model_id == resident.model_id:
        return Grant(first.model_id)
    ends_at = slice_ends_at(resident, others, limits)
    if now >= ends_at:
        return StartSwap(first.model_id)
    return Grant(resident.model_id) if len(others) < len(waiting) else WaitUntil(ends_at)


def in_order(waiting: Sequence[WaitingModel]) -> list[WaitingModel]:
    """Sort waiting models by turn: interactive ones first, then by the age of their oldest request."""
    return sorted(waiting, key=lambda one: (not one.interactive, one.since))


def slice_ends_at(resident: Resident, others: Sequence[WaitingModel], limits: QueueLimits) -> float:
    """Return until when requests for the resident model are admitted before those for other models."""
    if not others:
        return math.inf
    if any(one.interactive for one in others):
        return -math.inf
    turns = in_order(others)
    swap_seconds = turns[0].swap_seconds
    # Swapping away and back costs both times: with a slice as long, the GPU works at least half of the time.
    slice_seconds = max(limits.min_residency_seconds, swap_seconds + resident.swap_seconds)
    swaps_end_after = accumulate(one.swap_seconds for one in turns)
    ends_at = min(
        resident.since + slice_seconds,
        *(one.since + limits.max_wait_seconds - after for one, after in zip(turns, swaps_end_after, strict=True)),
    )
    if resident.idle_since is not None:
        # Waiting half a swap for nothing costs less than an unnecessary swap.
        ends_at = min(ends_at, resident.idle_since + min(_MAX_LINGER_SECONDS, swap_seconds / 2))
    return ends_at


def expected_seconds(waiting: Sequence[WaitingModel], model_id: str, *, under_way_seconds: float = 0.0) -> float | None:
    """Return the seconds that a request for a model will wait for swaps, if it waits already or arrives now.

    None if a swap's duration is unknown. `under_way_seconds`: how long the first swap has been running.
    """
    seconds = -under_way_seconds
    for one in in_order(waiting):
        if not one.swap_seconds:
            return None
        # A swap that takes longer than expected may end at any moment.
        seconds = max(0.0, seconds + one.swap_seconds)
        if one.model_id == model_id:
            break
    return max(0.0, seconds)


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

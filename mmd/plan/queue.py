"""Who is served next while requests wait for models that cannot have the GPU together.

The resident model keeps the GPU for a slice of time although others wait, so that what comes for it meanwhile costs no
two swaps more: A B A B becomes A A B B. The slice ends early where somebody has waited long enough, where nothing is
asked of the resident model any more, or where a person asks for another. After it nobody is let in to the resident
model, running answers finish, and the model whose request has waited longest is swapped in; all that wait for it
then share that swap. So whoever waits is served after at most one turn of each other model.

Times are seconds on any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

# The next request of the same client mostly comes in the moment after its last answer.
_MOST_LINGER_SECONDS = 2.0
_FIRST_COOL_DOWN_SECONDS = 10.0
_MOST_COOL_DOWN_SECONDS = 300.0
# What a client that is turned away is told to wait at least and at most.
_RETRY_SECONDS = (1, 300)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What reordering may do."""

    # Requests for the resident model go ahead only while all who wait can still be served within this, if running
    # answers end at once and the swaps before them take what they have lately taken. Those two nobody can bound here.
    max_wait_seconds: float
    min_residency_seconds: float  # for so long at least a model that is in use keeps the GPU


@dataclass(frozen=True, slots=True)
class Line:
    """The requests that wait for one model."""

    model_id: str
    since: float  # when the first of them came
    swap_seconds: float = 0.0  # what making it resident has lately taken; 0 where that is not known
    by_hand: bool = False  # a person waits for this model, and not for an answer of it


@dataclass(frozen=True, slots=True)
class Resident:
    """The model that has the GPU and answers."""

    model_id: str
    since: float  # when it became resident
    idle_since: float | None  # when its last answer ended; None while it is answering
    swap_seconds: float = 0.0  # what it takes to make it resident again; 0 where that is not known


@dataclass(frozen=True, slots=True)
class Grant:
    """Let those in who wait for the resident model."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Swap:
    """Let nobody in to the resident model; when its answers have ended, make this one resident."""

    model_id: str


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing changes before this time, unless requests come or go."""

    until: float


Decision = Grant | Swap | WaitUntil


def decide(lines: Sequence[Line], resident: Resident | None, now: float, bounds: QueueLimits) -> Decision:
    """What to do for those who wait; there must be some."""
    first = in_order(lines)[0]
    if resident is None:
        return Swap(first.model_id)
    others = [line for line in lines if line.model_id != resident.model_id]
    if first.model_id == resident.model_id:
        return Grant(first.model_id)
    closes_at = door_closes_at(resident, others, bounds)
    if now >= closes_at:
        return Swap(first.model_id)
    return Grant(resident.model_id) if len(others) < len(lines) else WaitUntil(closes_at)


def in_order(lines: Sequence[Line]) -> list[Line]:
    """The lines in the order of their turns."""
    return sorted(lines, key=lambda line: (not line.by_hand, line.since))


def door_closes_at(resident: Resident, others: Sequence[Line], bounds: QueueLimits) -> float:
    """Until when requests for the resident model go ahead of those for others."""
    if not others:
        return math.inf
    if any(line.by_hand for line in others):
        return -math.inf
    turns = in_order(others)
    swap_seconds = turns[0].swap_seconds
    # There and back takes both: with a slice of the same length the GPU is in use half of the time at least.
    slice_seconds = max(bounds.min_residency_seconds, swap_seconds + resident.swap_seconds)
    swaps_end_after = accumulate(line.swap_seconds for line in turns)
    closes_at = min(
        resident.since + slice_seconds,
        min(line.since + bounds.max_wait_seconds - after for line, after in zip(turns, swaps_end_after, strict=True)),
    )
    if resident.idle_since is not None:
        # To wait in vain for as long as half a swap takes is cheaper than to swap in vain.
        closes_at = min(closes_at, resident.idle_since + min(_MOST_LINGER_SECONDS, swap_seconds / 2))
    return closes_at


def expected_seconds(lines: Sequence[Line], model_id: str, *, under_way_seconds: float = 0.0) -> float | None:
    """How long somebody who waits for a model, or who joins its line now, will wait for swaps; None where that is not
    known. `under_way_seconds` is for how long the first swap has been going on.
    """
    seconds = -under_way_seconds
    for line in in_order(lines):
        if not line.swap_seconds:
            return None
        # One that takes longer than it used to may be over in any moment.
        seconds = max(0.0, seconds + line.swap_seconds)
        if line.model_id == model_id:
            break
    return max(0.0, seconds)


def retry_after_seconds(expected: float | None) -> int:
    """What a client is told that is turned away."""
    least, most = _RETRY_SECONDS
    return most // 10 if expected is None else min(most, max(least, math.ceil(expected)))


@dataclass(frozen=True, slots=True)
class CoolDown:
    """A model that has failed to load is not tried again before `until`."""

    failures: int
    until: float

    @classmethod
    def after_failure(cls, previous: CoolDown | None, now: float) -> CoolDown:
        failures = previous.failures + 1 if previous else 1
        seconds = min(_MOST_COOL_DOWN_SECONDS, _FIRST_COOL_DOWN_SECONDS * 2 ** min(failures - 1, 10))
        return cls(failures, now + seconds)

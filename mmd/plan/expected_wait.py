"""How long the requests in the queues will probably wait, and for whose responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmd.plan.queue import Step, Turn


@dataclass(frozen=True, slots=True)
class ExpectedWait:
    """The wait for one model.

    `seconds` until the model answers is None if a swap's duration is unknown, or if it depends on responses without a
    limit. `waits_for` are the models whose running responses must end first.
    """

    seconds: float | None = None
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SwapProgress:
    """What is known about durations now, by model."""

    swap_seconds: Mapping[str, float]  # of a whole swap; 0 if unknown
    swapping_since: Mapping[str, float]
    drained_by: Mapping[str, float]  # when the wait for responses ends at the latest
    answering: Mapping[str, int]  # running responses


def expected_waits(turns: Sequence[Turn], progress: SwapProgress, now: float) -> dict[str, ExpectedWait]:
    """Return the expected wait for each model that requests wait for."""
    found: dict[str, ExpectedWait] = {}
    for turn in turns:
        found[turn.model_id] = _expected_wait(turn, progress, found, now)
    return found


def _expected_wait(turn: Turn, progress: SwapProgress, found: Mapping[str, ExpectedWait], now: float) -> ExpectedWait:
    name = turn.model_id
    swap_seconds = progress.swap_seconds.get(name, 0.0)
    if turn.step is Step.GRANT:
        return ExpectedWait(0.0)
    if turn.step is Step.LOADING:
        # A swap that takes longer than expected may end at any moment.
        left = max(0.0, swap_seconds - (now - progress.swapping_since.get(name, now)))
        return ExpectedWait(left if swap_seconds else None)
    waits_for = tuple(sorted(one for one in turn.forecast.leavers if progress.answering.get(one)))
    begins = [max(0.0, turn.begins_at - now) if turn.begins_at < math.inf else 0.0]
    for one in turn.after:
        before = found.get(one)
        if before is None:  # the requests that it was loaded for are admitted already
            continue
        waits_for = tuple(sorted({*waits_for, *before.waits_for}))
        if before.seconds is None:
            return ExpectedWait(None, waits_for)
        begins.append(before.seconds)
    if turn.step is Step.SWAP and waits_for:
        begins.append(progress.drained_by.get(name, math.inf) - now)
    elif waits_for:
        begins.append(math.inf)
    is_known = bool(swap_seconds) and max(begins) < math.inf
    return ExpectedWait(max(begins) + swap_seconds if is_known else None, waits_for)

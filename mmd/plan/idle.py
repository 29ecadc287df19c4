"""The idle policy: which models are put to sleep or stopped because they are unused, and which are protected.

A model that is unused for its idle time is put to sleep, or stopped if its engine cannot sleep; one that has slept for
its time is stopped. Both times are infinite by default: a model on a GPU that no other program needs costs nothing, and
the next request would have to wait for it.

Times are seconds on any one clock; inf means never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# For a shorter idle time, the end of a use must trigger a new plan; otherwise a timer is precise enough.
_SHORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """The user's idle settings for a model."""

    sleep_seconds: float = math.inf  # idle time until it is put to sleep
    stop_seconds: float = math.inf  # time asleep until it is stopped
    pinned: bool = False  # never unloaded by idleness or requests

    def seconds(self, *, is_asleep: bool) -> float:
        """Return how long the model may stay unused in its present state."""
        if self.pinned:
            return math.inf
        return self.stop_seconds if is_asleep else self.sleep_seconds


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is resident or asleep."""

    model_id: str
    is_asleep: bool
    since: float  # when it entered this state
    rules: Rules = Rules()


@dataclass(frozen=True, slots=True)
class Usage:
    """How requests use a model."""

    is_active: bool = False  # a request is running or waiting
    ended: float = -math.inf  # when the last response ended
    keep_seconds: float | None = None  # idle time set by the last request with a keep_alive


class IdleAction(StrEnum):
    SLEEP = "sleep"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Due:
    """A model to put to sleep or stop now."""

    model_id: str
    action: IdleAction
    why: str


@dataclass(frozen=True, slots=True)
class IdlePlan:
    """What to do now, and when to plan again."""

    due: tuple[Due, ...]
    look_at: float  # no other model is due before this time
    look_when_unused: frozenset[str]  # plan again when the use of one of these ends


def plan_idle(loaded: Iterable[LoadedModel], uses: Mapping[str, Usage], now: float) -> IdlePlan:
    """Return which of the loaded models are due, given how requests use them (a missing one is unused)."""
    due: list[Due] = []
    look_at = math.inf
    look_when_unused: set[str] = set()
    for model in loaded:
        use = uses.get(model.model_id, Usage())
        seconds = _limit_seconds(model, use)
        if use.is_active and seconds < _SHORT_SECONDS:
            look_when_unused.add(model.model_id)
            continue
        unused_since = now if use.is_active else max(model.since, use.ended)  # at the earliest
        if now >= unused_since + seconds:
            due.append(_due(model, use, now - unused_since))
        else:
            look_at = min(look_at, unused_since + seconds)
    return IdlePlan(tuple(due), look_at, frozenset(look_when_unused))


def _limit_seconds(model: LoadedModel, use: Usage) -> float:
    if use.keep_seconds is None or model.is_asleep or model.rules.pinned:
        return model.rules.seconds(is_asleep=model.is_asleep)
    return use.keep_seconds


def _due(model: LoadedModel, use: Usage, unused_seconds: float) -> Due:
    if model.is_asleep:
        return Due(model.model_id, IdleAction.STOP, f"asleep for {unused_seconds:.0f} s (idle_stop_seconds)")
    by = "idle_sleep_seconds" if use.keep_seconds is None else "keep_alive"
    return Due(model.model_id, IdleAction.SLEEP, f"unused for {unused_seconds:.0f} s ({by})")

"""Who is put to sleep or stopped because nobody uses it, and who may not be touched.

A model that nobody has used for its time goes to sleep, or ends where its engine cannot sleep; one that has slept for
its time is stopped. Both times are for ever unless the user has laid them down: a model on a GPU that nobody else wants
costs nothing there, and the next request would have to wait until it is back.

Times are seconds on any one clock; inf is for ever.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# The end of a use is waited for only where a shorter time than this begins with it; else looking in time is enough.
_SHORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user has laid down for a model."""

    sleep_seconds: float = math.inf  # for how long it stays resident without being used
    stop_seconds: float = math.inf  # for how long it sleeps
    pinned: bool = False  # it stays, whatever requests ask for

    def seconds(self, *, is_asleep: bool) -> float:
        """For how long it stays as it is."""
        if self.pinned:
            return math.inf
        return self.stop_seconds if is_asleep else self.sleep_seconds


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is resident or asleep."""

    model_id: str
    is_asleep: bool
    since: float  # when it became so
    rules: Rules = Rules()


@dataclass(frozen=True, slots=True)
class Use:
    """What requests want, or wanted, of a model."""

    is_going_on: bool = False  # one is being answered, or waits
    ended: float = -math.inf  # when the last answer did
    keep_seconds: float | None = None  # how long it is to stay after that, as the last one to say so wants it


class Action(StrEnum):
    SLEEP = "sleep"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Rest:
    """One model that is due."""

    model_id: str
    action: Action
    why: str


@dataclass(frozen=True, slots=True)
class IdlePlan:
    due: tuple[Rest, ...]
    look_at: float  # nobody else can be due before
    look_when_unused: frozenset[str]  # or before one of these is used no more


def outlook(occupants: Iterable[LoadedModel], uses: Mapping[str, Use], now: float) -> IdlePlan:
    due: list[Rest] = []
    look_at = math.inf
    look_when_unused: set[str] = set()
    for occupant in occupants:
        use = uses.get(occupant.model_id, Use())
        seconds = _stays_seconds(occupant, use)
        if use.is_going_on and seconds < _SHORT_SECONDS:
            look_when_unused.add(occupant.model_id)
            continue
        unused_since = now if use.is_going_on else max(occupant.since, use.ended)  # at the earliest
        if now >= unused_since + seconds:
            due.append(_rest(occupant, use, now - unused_since))
        else:
            look_at = min(look_at, unused_since + seconds)
    return IdlePlan(tuple(due), look_at, frozenset(look_when_unused))


def may_evict(model_id: str, pinned: Collection[str], *, by_hand: bool) -> bool:
    """Whether a model that has the GPU may go for another: one that is pinned goes only where a person asks for it."""
    return by_hand or model_id not in pinned


def _stays_seconds(occupant: LoadedModel, use: Use) -> float:
    if use.keep_seconds is None or occupant.is_asleep or occupant.rules.pinned:
        return occupant.rules.seconds(is_asleep=occupant.is_asleep)
    return use.keep_seconds


def _rest(occupant: LoadedModel, use: Use, unused_seconds: float) -> Rest:
    if occupant.is_asleep:
        return Rest(occupant.model_id, Action.STOP, f"it has slept for {unused_seconds:.0f} s (idle_stop_seconds)")
    by = "idle_sleep_seconds" if use.keep_seconds is None else "keep_alive"
    return Rest(occupant.model_id, Action.SLEEP, f"nobody has used it for {unused_seconds:.0f} s ({by})")

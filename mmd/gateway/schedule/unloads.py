"""Unloads without a swap: for a user's `mmd sleep`, for an idle model, for a lease. A part of the scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from mmd.gateway.schedule.events import BeginUnload, CutResponses, DeclineUnload, Effect, UnloadAsked


@dataclass(frozen=True, slots=True)
class Uses:
    """What an unload must respect: models by what they are used for."""

    answering: Collection[str]
    waited_for: Collection[str]
    swapping: Collection[str]  # being loaded, or leaving for one that is
    is_paused: bool


class _Phase(Enum):
    QUEUED = auto()  # another unload concerns its models
    DRAINING = auto()
    WORKING = auto()


@dataclass(slots=True)
class _Unload:
    asked: UnloadAsked
    phase: _Phase = _Phase.QUEUED
    drained_by: float = math.inf
    was_delayed: bool = False


class Unloads:
    """The unloads that were asked for and have not ended, oldest first."""

    def __init__(self) -> None:
        self.pending: dict[int, _Unload] = {}

    @property
    def models(self) -> frozenset[str]:
        """The models that admit no request because of an unload."""
        return frozenset(
            name for one in self.pending.values() if one.phase is not _Phase.QUEUED for name in one.asked.models
        )

    def add(self, asked: UnloadAsked) -> None:
        self.pending[asked.key] = _Unload(asked)

    def discard(self, key: int) -> None:
        self.pending.pop(key, None)

    def act(self, effects: list[Effect], uses: Uses, now: float) -> float:
        """Append what must be done now; return when to look again."""
        for key, one in tuple(self.pending.items()):
            if one.phase is _Phase.QUEUED:
                self._begin(key, one, effects, uses, now)
            if one.phase is _Phase.DRAINING:
                self._drain(key, one, effects, uses, now)
        return min((one.drained_by for one in self.pending.values() if one.phase is _Phase.DRAINING), default=math.inf)

    def _begin(self, key: int, one: _Unload, effects: list[Effect], uses: Uses, now: float) -> None:
        models = one.asked.models
        is_concerned = not models.isdisjoint(uses.swapping) or uses.is_paused
        is_shared = bool(self.models) if not models else not models.isdisjoint(self.models)
        if is_shared or (one.asked.only_idle and is_concerned):
            one.was_delayed = True
            return
        in_use = not models.isdisjoint(uses.answering) or not models.isdisjoint(uses.waited_for)
        if one.asked.only_idle and (one.was_delayed or in_use):
            del self.pending[key]
            effects.append(DeclineUnload(key))
            return
        one.phase = _Phase.DRAINING
        one.drained_by = now + one.asked.limit_seconds

    def _drain(self, key: int, one: _Unload, effects: list[Effect], uses: Uses, now: float) -> None:
        answering = one.asked.models.intersection(uses.answering)
        if answering and now < one.drained_by:
            return
        if answering:
            # Without any time a user asked to cut.
            effects.append(CutResponses(answering, one.asked.reason, one.asked.limit_seconds or None))
        one.phase = _Phase.WORKING
        effects.append(BeginUnload(key))

"""The requests that wait for a model, and their position."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class ModelQueue:
    """The requests that wait for one model, oldest first. The scheduler owns it."""

    model_id: str
    enqueued_at: dict[asyncio.Future[str], float] = field(default_factory=dict)
    interactive: int = 0  # how many of them are interactive
    force_reload: bool = False  # load it although it counts as resident: its engine refuses connections

    def add(self, waiter: asyncio.Future[str], *, interactive: bool, force_reload: bool) -> None:
        self.enqueued_at[waiter] = monotonic()
        self.interactive += interactive
        self.force_reload |= force_reload

    def discard(self, waiter: asyncio.Future[str], *, interactive: bool) -> None:
        self.enqueued_at.pop(waiter, None)
        self.interactive -= interactive

    @property
    def since(self) -> float:
        return next(iter(self.enqueued_at.values()))


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The turn of a request's model among `turns`, and the seconds until then (None if unknown)."""

    turn: int
    turns: int
    expected_seconds: float | None

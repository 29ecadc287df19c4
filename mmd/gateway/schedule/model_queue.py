"""Those who wait for a model, and where they stand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """Those who wait for one model, by when they came."""

    model_id: str
    came: dict[asyncio.Future[str], float] = field(default_factory=dict)
    by_hand: int = 0  # how many of them
    anew: bool = False  # it is believed resident, but its engine does not accept connections

    @property
    def since(self) -> float:
        return next(iter(self.came.values()))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands: its model's turn, of so many, and how long until then (None where that is not known)."""

    turn: int
    turns: int
    expected_seconds: float | None

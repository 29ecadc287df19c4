"""What the API and the waiting clients see of the scheduler: GET /queue, and the event `queue`. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InFlight:
    """Requests that one engine is answering."""

    model: str
    requests: int


@dataclass(frozen=True, slots=True)
class QueueTurn:
    """Requests that wait for one model. `expected_seconds` until it is loaded; null if that is not known.

    `waits_for`: the running responses that must end first. Without `gateway.drain_seconds` that may take any time.
    """

    model: str
    waiting: int
    waited_seconds: float
    expected_seconds: float | None
    waits_for: tuple[InFlight, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The turn of a request's model among `turns`; the other fields are as in `QueueTurn`."""

    turn: int
    turns: int
    expected_seconds: float | None
    waits_for: tuple[InFlight, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The models that requests wait for, in the order of their turns, and those that are answering."""

    turns: tuple[QueueTurn, ...]
    in_flight: tuple[InFlight, ...]

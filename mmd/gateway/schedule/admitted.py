"""The requests that engines are answering now."""

from __future__ import annotations

import math

from mmd.gateway.schedule.queue_status import InFlight


class Admitted:
    """Counts the admitted requests of each model, and records since when it is used. The scheduler's state owns it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}  # without zeros
        self.resident_since: dict[str, float] = {}  # when it was loaded, or first admitted after another loaded it
        self._idle_since: dict[str, float] = {}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __contains__(self, model_id: str) -> bool:
        return model_id in self.counts

    def idle_since(self, model_id: str) -> float | None:
        """Return when the model's last response ended; None while one runs or if none has."""
        return None if model_id in self.counts else self._idle_since.get(model_id)

    def idle_in_slice_since(self, model_id: str) -> float | None:
        """Return since when the model has been resident without a request; None while one runs."""
        if model_id in self.counts:
            return None
        return max(self.resident_since.get(model_id, -math.inf), self._idle_since.get(model_id, -math.inf))

    def begin(self, model_id: str) -> None:
        self.counts[model_id] = self.counts.get(model_id, 0) + 1

    def end(self, model_id: str, now: float) -> None:
        left = self.counts[model_id] - 1
        if left:
            self.counts[model_id] = left
        else:
            del self.counts[model_id]
            self._idle_since[model_id] = now

    def status(self) -> tuple[InFlight, ...]:
        return tuple(InFlight(*one) for one in sorted(self.counts.items()))

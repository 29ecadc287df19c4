"""The requests that engines are answering now."""

from __future__ import annotations

from time import monotonic

from mmd.gateway.schedule.queue_status import InFlight


class Admitted:
    """Counts the admitted requests of each model, and records whose slice it is. The scheduler owns it."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # without zeros
        self._idle_since: dict[str, float] = {}
        self.resident: str | None = None  # the model that was admitted last
        self.resident_since = 0.0

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._counts

    def count(self, model_id: str) -> int:
        return self._counts.get(model_id, 0)

    def others(self, model_id: str) -> list[str]:
        """Return the other models that are answering requests."""
        return [other for other in self._counts if other != model_id]

    def idle_since(self, model_id: str) -> float | None:
        """Return when the model's last response ended, on the monotonic clock; None while one runs or if none has."""
        return None if model_id in self._counts else self._idle_since.get(model_id)

    def begin(self, model_id: str) -> None:
        self._counts[model_id] = self._counts.get(model_id, 0) + 1
        if model_id != self.resident:
            self.resident, self.resident_since = model_id, monotonic()

    def end(self, model_id: str) -> None:
        left = self._counts[model_id] - 1
        if left:
            self._counts[model_id] = left
        else:
            del self._counts[model_id]
            self._idle_since[model_id] = monotonic()

    def end_slice(self) -> None:
        """Let the next admission begin a new slice, even for the same model."""
        self.resident = None

    def status(self) -> tuple[InFlight, ...]:
        return tuple(InFlight(*one) for one in sorted(self._counts.items()))

"""What other packages read of the scheduler: the models in use, and the requests that wait for each model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from time import monotonic

from mmd.gateway.schedule.queue_status import QueuePosition, QueueStatus
from mmd.gateway.schedule.state import SchedulerState
from mmd.plan.placement.occupancy import Use


class SchedulerView:
    """Reads the state machine, and changes nothing."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state

    @property
    def is_paused(self) -> bool:
        return self._state.is_paused

    @property
    def is_swapping(self) -> bool:
        return bool(self._state.swaps)

    @property
    def waiting_count(self) -> int:
        """How many requests wait, for any model."""
        return self._state.waiting_count

    @property
    def in_flight_count(self) -> int:
        """How many requests are admitted and not yet released, for all models."""
        return self._state.admitted.total

    @property
    def unloading(self) -> Collection[str]:
        """The models that are being put to sleep or stopped; no request for them is admitted meanwhile."""
        return self._state.unloads.models

    @property
    def waiting_models(self) -> Collection[str]:
        """The models that requests wait for."""
        return self._state.queues.keys()

    def in_flight(self, model_id: str) -> int:
        """Return how many requests the model's engine is answering."""
        return self._state.admitted.counts.get(model_id, 0)

    def is_in_use(self, model_id: str) -> bool:
        """Return whether a request for the model is being answered or waits."""
        return self._state.is_in_use(model_id)

    def idle_since(self, model_id: str) -> float | None:
        """Return when the model's last response ended, on the monotonic clock; None if it is in use or had none."""
        return None if self.is_in_use(model_id) else self._state.admitted.idle_since(model_id)

    def uses(self) -> Mapping[str, Use]:
        """Return how requests use the models that hold memory."""
        return self._state.uses(monotonic())

    def position(self, model_id: str) -> QueuePosition:
        """Return the position of a request that waits for this model now."""
        return self._state.position(model_id, monotonic())

    def queue(self) -> QueueStatus:
        return self._state.status(monotonic())

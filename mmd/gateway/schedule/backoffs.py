"""Backoff after a failed load: requests do not retry the model at once."""

from __future__ import annotations

from mmd.errors import EngineFailed, TryLater
from mmd.plan.queue import Backoff, retry_after_seconds


class LoadBackoffs:
    """The models that failed to load recently, with the end of their backoff. The scheduler's state owns it."""

    def __init__(self) -> None:
        # With the error's message only: the error would keep its traceback alive.
        self._failed: dict[str, tuple[Backoff, str]] = {}

    def failed(self, model_id: str, error: EngineFailed, now: float) -> None:
        before = self._failed.get(model_id)
        backoff = Backoff.after_failure(before[0] if before else None, now)
        self._failed[model_id] = backoff, error.message

    def loaded(self, model_id: str) -> None:
        self._failed.pop(model_id, None)

    def refusal(self, model_id: str, now: float) -> TryLater | None:
        """Return the error for a request if the model's backoff has not ended."""
        backoff, reason = self._failed.get(model_id, (None, ""))
        if backoff is None or backoff.until <= now:
            return None
        left = backoff.until - now
        message = f"{reason}; the next attempt is possible in {left:.0f} s"
        hint = f"mmd activate {model_id}   # try it now"
        return TryLater(message, hint=hint, retry_after_seconds=retry_after_seconds(left))

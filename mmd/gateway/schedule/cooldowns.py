"""Models that have failed to load a moment ago: a request does not try them again at once."""

from __future__ import annotations

from time import monotonic

from mmd.errors import EngineFailed, TryLater
from mmd.plan.queue import CoolDown, retry_after_seconds


class CoolDowns:
    def __init__(self) -> None:
        self._failed: dict[str, tuple[CoolDown, str]] = {}  # and why: not the error, it holds the last that waited

    def failed(self, model_id: str, error: EngineFailed) -> None:
        before = self._failed.get(model_id)
        cool_down = CoolDown.after_failure(before[0] if before else None, monotonic())
        self._failed[model_id] = cool_down, error.message

    def loaded(self, model_id: str) -> None:
        self._failed.pop(model_id, None)

    def refuse(self, model_id: str) -> None:
        """Raises TryLater where it is not to be tried yet."""
        cool_down, reason = self._failed.get(model_id, (None, ""))
        if cool_down is None:
            return
        left = cool_down.until - monotonic()
        if left > 0:
            message = f"{reason}; it is tried again in {left:.0f} s"
            hint = f"mmd activate {model_id}   # try it now"
            raise TryLater(message, hint=hint, retry_after_seconds=retry_after_seconds(left))

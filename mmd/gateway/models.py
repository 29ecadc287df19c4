"""What the gateway needs of the rest of mmd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Models(Protocol):
    """The registered models and who may be asked what; `mmd.control` has it over systemd, tests have it in memory."""

    def find(self, name: str | None) -> str:
        """The id for the name in a request; None and "" mean the active model.

        Raises NoSuchModel, or another MmdError where no name was given and nothing is active. No I/O.
        """
        ...

    def address(self, model_id: str) -> str | None:
        """The Unix socket of the model's engine if it answers right now, else None.

        A watched view, so no I/O; it must be up to date once `activate` has returned.
        """
        ...

    def is_asleep(self, model_id: str) -> bool:
        """Whether the model's engine runs and leaves requests unanswered until it is woken; the same view."""
        ...

    def follow(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every change of what `address` and `is_asleep` say."""
        ...

    async def made_room(self, model_id: str) -> bool:
        """Whether an engine that has just ended had to make room for another; else it died or was stopped by hand."""
        ...

    async def activate(self, model_id: str, *, drain_seconds: float) -> None:
        """Returns when the model answers; raises EngineFailed, DoesNotFit, SwapSuperseded and other MmdErrors.
        `drain_seconds` is how long running answers have held it up, for the record.
        """
        ...

    async def sleep(self, model_id: str | None, level: int | None) -> None: ...

    async def stop(self, model_id: str | None) -> None: ...

    async def status(self) -> dict[str, Any]: ...

    async def models(self) -> list[dict[str, Any]]: ...

    async def resources(self) -> dict[str, Any]: ...

"""What the gateway needs to know of models, and to do with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from mmd.control.state.memory_use import Resources
from mmd.control.state.model_info import ModelInfo
from mmd.control.state.status import Status
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.plan.idle import LoadedModel


class Models(Protocol):
    """The registered models and their engines: `SystemdModels` over systemd, `MemoryModels` in tests.

    Synchronous methods answer from memory, from a watched view of the units or from files that are read again when they
    change: they do no other I/O.
    """

    def find(self, name: str | None, listener_kind: ListenerKind = ListenerKind.MAIN) -> str:
        """Return the id for the name in a request. None and "" mean the active model, else the one that was suspended
        last; on the embedding listener the embedding model. Raises NoSuchModel.
        """
        ...

    def address(self, model_id: str) -> str | None:
        """Return the Unix socket of the model's engine if it answers now, else None. Up to date once `activate` has
        returned.
        """
        ...

    def is_asleep(self, model_id: str) -> bool:
        """Return whether the model's engine runs, and does not answer requests until it is woken."""
        ...

    def expected_seconds(self, model_id: str) -> float | None:
        """Return the seconds that recent activations of the model took, from its present state; None if unknown."""
        ...

    def follow(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of `address` or `is_asleep`."""
        ...

    def gpu_holder(self, *, other_than: str | None = None) -> str | None:
        """Return the model that has the GPU or is about to have it; only one `other_than` this, if given."""
        ...

    def pinned(self) -> Collection[str]:
        """Return the models that only a user's command may unload."""
        ...

    async def loaded_models(self, *, wishes: Collection[str]) -> Sequence[LoadedModel]:
        """Return the resident and sleeping models, and since when they are so, on the monotonic clock. Models that have
        no idle time and are not in `wishes`, those whose requests asked for one, may be missing.
        """
        ...

    async def was_evicted(self, model_id: str) -> bool:
        """Return whether a swap ended this engine, which has just ended; else it crashed or a user stopped it."""
        ...

    async def activate(self, model_id: str, *, drain_seconds: float) -> None:
        """Return when the model answers. Raises EngineFailed, DoesNotFit, SwapSuperseded and other MmdErrors.
        `drain_seconds`, for which running responses delayed it, are for the record.
        """
        ...

    async def sleep(self, model_id: str | None, level: int | None = None) -> tuple[str, ...]:
        """Put a model, by default the active one, to sleep. Return the models that were unloaded or changed level."""
        ...

    async def stop(self, model_id: str | None) -> None: ...

    async def stop_asleep(self, model_id: str) -> None:
        """Stop a model unless it is no longer asleep."""
        ...

    async def on_gpu(self) -> Collection[str]:
        """Return the models that use GPU memory or are about to."""
        ...

    def suspended(self) -> Sequence[str]:
        """Return the models that `suspend` took off the GPU and that are not restored yet, the last one first."""
        ...

    async def suspend(self, *, drain_seconds: float) -> None:
        """Take all models off the GPU, those that are being loaded included, and record which. Failures are logged.
        `drain_seconds` is as in `activate`.
        """
        ...

    async def restore(self, model_ids: Sequence[str]) -> None:
        """Activate these models again unless that unloads another. None counts as suspended then. Logs failures."""
        ...

    async def status(self) -> Status: ...

    async def models(self) -> list[ModelInfo]: ...

    async def resources(self) -> Resources: ...

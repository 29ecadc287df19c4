"""What the gateway needs of the rest of mmd."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from mmd.control.state.memory_use import Resources
from mmd.control.state.model_info import ModelInfo
from mmd.control.state.status import Status
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.plan.idle import LoadedModel


class Models(Protocol):
    """The registered models and who may be asked what; `mmd.control` has it over systemd, tests have it in memory."""

    def find(self, name: str | None, listener_kind: ListenerKind = ListenerKind.MAIN) -> str:
        """The id for the name in a request; None and "" mean the active model, on the embedding entrance the embedding
        model.

        Raises NoSuchModel, or another MmdError where no name was given and there is no such model. No I/O, but a look
        at who is `away` where no name was given and nobody is active.
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

    def expected_seconds(self, model_id: str) -> float | None:
        """What making the model resident has lately taken, from where it is now; None where that is not known. No I/O
        but a stat().
        """
        ...

    def follow(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every change of what `address` and `is_asleep` say."""
        ...

    def gpu_holder(self, *, other_than: str | None = None) -> str | None:
        """The model, or another one, that has the GPU or is about to have it; the same view."""
        ...

    def pinned(self) -> Collection[str]:
        """Models that stay. No I/O but a stat()."""
        ...

    async def loaded_models(self, *, wishes: Collection[str]) -> Sequence[LoadedModel]:
        """Who is resident or asleep, and since when, on the monotonic clock; at least those of them who need not be so
        for ever, by the user's rules or because requests have wishes about them.
        """
        ...

    async def was_evicted(self, model_id: str) -> bool:
        """Whether an engine that has just ended had to make room for another; else it died or was stopped by hand."""
        ...

    async def activate(self, model_id: str, *, drain_seconds: float) -> None:
        """Returns when the model answers; raises EngineFailed, DoesNotFit, SwapSuperseded and other MmdErrors.
        `drain_seconds` is how long running answers have held it up, for the record.
        """
        ...

    async def sleep(self, model_id: str | None, level: int | None = None) -> tuple[str, ...]:
        """Returns who had the GPU, or sleeps at another level now."""
        ...

    async def stop(self, model_id: str | None) -> None: ...

    async def stop_asleep(self, model_id: str) -> None:
        """Nothing happens to one that is not asleep any more."""
        ...

    async def on_gpu(self) -> Collection[str]:
        """Models whose memory is a GPU's, or is about to be."""
        ...

    def suspended(self) -> Sequence[str]:
        """Who had the GPU before the machine went to sleep, and has not been brought back, the last one first. A
        request that names no model means that one where nobody is active.
        """
        ...

    async def suspend(self, *, drain_seconds: float) -> None:
        """Take the GPU from all who are on it, those that are being loaded included, and note who. `drain_seconds` is
        how long running answers have held it up, for the record. What fails is logged.
        """
        ...

    async def restore(self, model_ids: Sequence[str]) -> None:
        """Give these the GPU again as far as nobody has taken it; nobody is away then. What fails is logged."""
        ...

    async def status(self) -> Status: ...

    async def models(self) -> list[ModelInfo]: ...

    async def resources(self) -> Resources: ...

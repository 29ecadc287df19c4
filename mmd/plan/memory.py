"""The protocol of an engine's memory formulas, and the records they share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from mmd.plan.estimate import Components
from mmd.registry.layout import Layout


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Bytes that grow with the context, and those that do not."""

    kv_bytes: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model is laid out on a machine."""

    components: Components  # if all of it is on the GPU, or in RAM without one
    fits: bool  # it runs, possibly with layers in RAM
    on_gpu: float  # share of the layers' weights
    ram_bytes: int  # beside the GPU's memory


@dataclass(frozen=True, slots=True)
class Variant:
    """The same model served with other arguments."""

    memory: MemoryModel
    change: str  # for people
    arguments: tuple[str, ...]  # of the engine


class MemoryModel(Protocol):
    """One model under one command line on one machine; every size grows with the context."""

    @property
    def wanted_context(self) -> int:
        """The context that the command line asks for; 0 if the engine decides."""
        ...

    def components(self, context: int) -> Components: ...

    def error_bytes(self, components: Components) -> int: ...

    def has_bytes(self) -> int:
        """Return the memory that the components may take together."""
        ...

    def min_bytes(self, context: int) -> int:
        """Return the memory without which it does not run, of the kinds that its engine counts together."""
        ...

    def placement(self, context: int) -> Placement: ...

    def is_whole(self, context: int) -> bool:
        """True if all of it fits on the GPU, or in RAM without one."""
        ...

    def max_context(self, trained: int) -> int:
        """Return the largest context with which it fits, 0 if none does."""
        ...

    def with_smaller_numbers(self) -> Variant | None:
        """Return the model with keys and values in 8 bits; None if the engine cannot."""
        ...

    def with_experts_in_ram(self, context: int) -> Variant | None:
        """Return the model with as few routed experts in RAM as let everything else fit; None if that does not help."""
        ...

    def with_weights(self, share: float) -> MemoryModel:
        """Return the model with weights of `share` times the size, as of another quantisation."""
        ...


def scaled(layout: Layout, share: float) -> Layout:
    """Return the layout with all weights times `share`."""
    return replace(
        layout,
        input_bytes=round(layout.input_bytes * share),
        repeating_bytes=round(layout.repeating_bytes * share),
        expert_bytes=tuple((layers, round(size_bytes * share)) for layers, size_bytes in layout.expert_bytes),
        output_bytes=round(layout.output_bytes * share),
        copied_bytes=round(layout.copied_bytes * share),
        float32_bytes=round(layout.float32_bytes * share),
        amx_bytes=round(layout.amx_bytes * share),
    )

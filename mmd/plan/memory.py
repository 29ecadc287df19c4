"""What the engines' formulas for memory have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from mmd.plan.estimate import Components
from mmd.registry.layout import Anatomy


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Bytes that grow with the context, and those that do not."""

    kv_bytes: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model lies in a machine."""

    components: Components  # were all of it where it should be
    fits: bool  # it runs, if in part from the RAM
    on_gpu: float  # share of the layers' weights
    ram_bytes: int  # beside the GPU's memory


@dataclass(frozen=True, slots=True)
class Variant:
    """The same model served in another way."""

    memory: MemoryModel
    change: str  # for people
    arguments: tuple[str, ...]  # of the engine, that bring it about


class MemoryModel(Protocol):
    """One model under one command line on one machine; every size grows with the context."""

    @property
    def wanted_context(self) -> int:
        """The context that the command line asks for; 0 if the engine decides."""
        ...

    def components(self, context: int) -> Components: ...

    def error_bytes(self, components: Components) -> int: ...

    def has_bytes(self) -> int:
        """What there is for the components together, were all of it where it should be."""
        ...

    def min_bytes(self, context: int) -> int:
        """What must be there for it to run at all, of the memory that its engine counts as one."""
        ...

    def placement(self, context: int) -> Placement: ...

    def is_whole(self, context: int) -> bool:
        """Whether all of it fits where it should be."""
        ...

    def max_context(self, trained: int) -> int:
        """The largest with which it fits, 0 where none does."""
        ...

    def with_smaller_numbers(self) -> Variant | None:
        """Keys and values in 8 bits."""
        ...

    def with_experts_in_ram(self, context: int) -> Variant | None:
        """As few routed experts as it takes for all else to fit."""
        ...

    def with_weights(self, share: float) -> MemoryModel:
        """The same model in another quantisation, by the size of its weights."""
        ...


def scaled(anatomy: Anatomy, share: float) -> Anatomy:
    """All weights times `share`."""
    return replace(
        anatomy,
        input_bytes=round(anatomy.input_bytes * share),
        repeating_bytes=round(anatomy.repeating_bytes * share),
        expert_bytes=tuple((layers, round(size_bytes * share)) for layers, size_bytes in anatomy.expert_bytes),
        output_bytes=round(anatomy.output_bytes * share),
        copied_bytes=round(anatomy.copied_bytes * share),
        float32_bytes=round(anatomy.float32_bytes * share),
        amx_bytes=round(anatomy.amx_bytes * share),
    )

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
class MemorySplit:
    """How the memory of a model is divided between GPUs and RAM."""

    components: Components  # if all of it is on the GPU, or in RAM without one
    fits: bool  # it runs, possibly with layers in RAM
    on_gpu: float  # share of the layers' weights that is on the GPU
    ram_bytes: int  # in addition to GPU memory


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """What each device holds if all of a model is on its devices, with the error of the estimate.

    Each device holds `each_bytes`. In addition, `divided_bytes` are divided among them in any ratio.
    """

    each_bytes: int
    cache_bytes: int = 0  # of `each_bytes`: keys, values and states
    is_pool_fixed: bool = False  # `cache_bytes` do not depend on the context
    divided_bytes: int = 0  # on all devices together
    movable_bytes: int = 0  # on all devices together: the engine may put these into RAM instead


@dataclass(frozen=True, slots=True)
class Variant:
    """The same model served with other arguments."""

    memory: MemoryModel
    change: str  # for people
    arguments: tuple[str, ...]  # of the engine


class MemoryModel(Protocol):
    """The memory of one model with one command line on one machine. Every size grows with the context."""

    @property
    def wanted_context(self) -> int:
        """The context that the command line asks for; 0 if the engine decides."""
        ...

    def components(self, context: int) -> Components: ...

    def error_bytes(self, components: Components) -> int: ...

    def has_bytes(self) -> int:
        """Return the memory that all components together may use."""
        ...

    def min_bytes(self, context: int) -> int:
        """Return the minimum memory with which it runs, of the kinds of memory that its engine adds up."""
        ...

    def on_devices(self, context: int, error_bytes: int) -> DeviceBytes:
        """Return the memory on each GPU of the machine, or in RAM without one; the error is divided among them."""
        ...

    def placement(self, context: int) -> MemorySplit: ...

    def is_whole(self, context: int) -> bool:
        """True if all of it fits on the GPU, or in RAM without one."""
        ...

    def max_context(self, trained: int) -> int:
        """Return the largest context with which it fits, 0 if none does."""
        ...

    def with_8_bit_cache(self) -> Variant | None:
        """Return the model with keys and values in 8 bits; None if the engine cannot."""
        ...

    def with_experts_in_ram(self, context: int) -> Variant | None:
        """Return the model with the fewest routed experts in RAM that let the rest fit; None if that does not help."""
        ...

    def with_weights(self, share: float) -> MemoryModel:
        """Return the model with weights of `share` times the size, which stands for another quantisation."""
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

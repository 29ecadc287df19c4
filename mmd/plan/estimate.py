"""The records of an estimate: the memory that a model needs, its error, and its source."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum


class Tier(StrEnum):
    """The source of an estimate, the least exact first."""

    T0 = "listed"  # sizes in a list of the hub
    T1 = "header"  # the headers of the files, by formulas
    T2 = "engine"  # the engine's own report, made without weights
    T3 = "measured"  # a start on this machine


@dataclass(frozen=True, slots=True)
class Components:
    """Bytes of the memory in which the model runs: the GPU's, or RAM without one."""

    weights_bytes: int
    kv_bytes: int  # keys and values of the whole context
    state_bytes: int  # of recurrent layers
    compute_bytes: int
    projector_bytes: int  # with its compute buffer
    overhead_bytes: int  # the driver's context, libraries, graphs

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change after which the model fits."""

    change: str  # for people: "a context of 16384 tokens"
    needs_bytes: int  # with the change
    command: str  # to paste, or an editor with the lines for mmd.toml


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a model needs on a machine, and whether it fits."""

    needs_bytes: int  # the sum of the components
    has_bytes: int  # available on this machine for the components
    error_bytes: int  # `needs_bytes` may be this much more or less
    tier: Tier
    fits: bool  # it runs on this machine, but slowly if `on_gpu` is small
    components: Components
    context: int  # tokens that the components are counted for
    max_context: int  # the largest with which it fits; 0 if none does
    suggestions: tuple[Suggestion, ...]  # least loss first; none if all of it is on the GPU
    on_gpu: float  # share of the layers' weights that the GPU holds: 1.0 is fast, 0.0 runs on the CPU
    ram_bytes: int  # RAM needed in addition to GPU memory

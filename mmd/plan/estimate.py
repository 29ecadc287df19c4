"""What a model needs of a machine's memory: in parts, with how far off it may be and where it is known from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum


class Tier(StrEnum):
    """Where an estimate is known from, the vaguest first."""

    T0 = "listed"  # sizes in a list of the hub
    T1 = "header"  # the headers of the files, by formulas
    T2 = "engine"  # the engine itself, asked without weights
    T3 = "measured"  # a start on this machine


@dataclass(frozen=True, slots=True)
class Components:
    """Bytes of the memory in which the model runs: the GPU's, or RAM where there is none."""

    weights_bytes: int
    kv_bytes: int  # keys and values of the whole context
    state_bytes: int  # of recurrent layers
    compute_bytes: int
    projector_bytes: int  # with what it computes in
    overhead_bytes: int  # the driver's context, libraries, graphs

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change after which the model fits."""

    change: str  # for people: "a context of 16384 tokens"
    needs_bytes: int  # then, of the same memory
    command: str  # to paste; or what to write into mmd.toml


@dataclass(frozen=True, slots=True)
class Estimate:
    needs_bytes: int  # the sum of the components
    has_bytes: int  # what this machine has for them
    error_bytes: int  # how far off that may be, either way
    tier: Tier
    fits: bool  # it runs here, if slowly: see `on_gpu`
    components: Components
    context: int  # tokens that the components are counted for
    max_context: int  # the largest with which it fits; 0 where even the smallest does not
    suggestions: tuple[Suggestion, ...]  # the one that loses least first; none where all of it is where it should be
    on_gpu: float  # share of the layers' weights that the GPU holds: 1.0 is fast, 0.0 runs on the CPU
    ram_bytes: int  # what it takes of the RAM beside

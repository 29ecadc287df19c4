"""A model as the hub lists it, before anything of it has been read."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.registry.record import Format, ModelType


@dataclass(frozen=True, slots=True)
class HubModel:
    """One model of a repository."""

    file: str  # by which it is asked for
    format: Format
    weights_bytes: int
    projector_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.projector_bytes


@dataclass(frozen=True, slots=True)
class Base:
    """What all models of a repository have in common, as far as the hub says it."""

    type: ModelType
    parameters: int = 0  # 0 where it does not
    context_length: int = 0  # tokens; likewise
    quant: str = ""  # of safetensors: "awq", "fp8"; "" where they are not quantised

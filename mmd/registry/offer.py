"""A model as the hub lists it, before its headers are read."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.registry.record import Format, ModelType


@dataclass(frozen=True, slots=True)
class HubModel:
    """One model of a repository."""

    file: str  # the name to request it by
    format: Format
    weights_bytes: int
    projector_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.projector_bytes


@dataclass(frozen=True, slots=True)
class Base:
    """What all models of a repository have in common, as far as the hub knows it."""

    type: ModelType
    parameters: int = 0  # 0 if unknown
    context_length: int = 0  # tokens; 0 if unknown
    quant: str = ""  # of safetensors: "awq", "fp8"; "" if they are not quantised

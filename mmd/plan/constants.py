"""Constants of a machine and an engine version that no file header contains; starts on the machine measure them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmd.quantities import GIB, MIB


@dataclass(frozen=True, slots=True)
class Constants:
    """Defaults from published measurements. Values measured on this machine replace them, with their own errors.

    An engine may subclass this record with defaults and fields of its own.
    """

    # Constants that a start measures -> the field of their error, "" if there is none.
    MEASURED: ClassVar[Mapping[str, str]] = {
        "context_bytes": "context_error_bytes",
        "process_bytes": "process_error_bytes",
    }

    # VRAM of CUDA and its libraries for each process and GPU: 140 MiB on a laptop, 750 on a Blackwell card.
    context_bytes: int = 460 * MIB
    context_error_bytes: int = 300 * MIB
    # RAM of an engine on the CPU: its program and heap.
    process_bytes: int = 100 * MIB
    process_error_bytes: int = 60 * MIB

    compute_factor: float = 1.0  # multiplies the engine's formula for compute buffers
    compute_error: float = 0.25  # share of the formula's result
    compute_error_bytes: int = 64 * MIB

    # For a model of unknown width: registries of older versions and lists of the hub do not contain it.
    unknown_compute_bytes: int = GIB // 4
    unknown_error_bytes: int = GIB // 2

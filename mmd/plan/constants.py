"""What no header says: properties of a machine and of an engine's version, best measured there once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmd.quantities import GIB, MIB


@dataclass(frozen=True, slots=True)
class Constants:
    """Defaults from published measurements, to be replaced by what was measured on this machine, with its own error.

    An engine may subclass this record with defaults and fields of its own.
    """

    # Constants that a start measures -> the field of their error, "" if there is none.
    MEASURED: ClassVar[Mapping[str, str]] = {
        "context_bytes": "context_error_bytes",
        "process_bytes": "process_error_bytes",
    }

    # Of CUDA and its libraries, for each process and GPU: 140 MiB on a laptop, 750 on a Blackwell card.
    context_bytes: int = 460 * MIB
    context_error_bytes: int = 300 * MIB
    # An engine on the CPU: its program and heap.
    process_bytes: int = 100 * MIB
    process_error_bytes: int = 60 * MIB

    compute_factor: float = 1.0  # times the engine's formula for computing
    compute_error: float = 0.25  # share of what the formula says
    compute_error_bytes: int = 64 * MIB

    # Of a model of unknown width, which a registry of an older version and a list of the hub do not contain.
    unknown_compute_bytes: int = GIB // 4
    unknown_error_bytes: int = GIB // 2

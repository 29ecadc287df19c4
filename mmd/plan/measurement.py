"""What a start shows of the memory that a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.breakdown import Breakdown
from mmd.plan.estimate import Components

Sizes = dict[str, int | None]  # bytes by the names in `Components` and in `Constants.MEASURED`; None if unknown


@dataclass(frozen=True, slots=True)
class LoadLog:
    """Bytes of the memory that the model runs in, as its engine logs them; None if the log does not say."""

    context: int | None = None  # tokens
    weights_bytes: int | None = None
    kv_bytes: int | None = None  # of the whole context
    state_bytes: int | None = None
    compute_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of the memory of one running engine."""

    gpus: int  # that it uses; 0 on the CPU
    total_bytes: int | None  # of its processes, on the GPUs or in RAM; None if the driver does not say
    log: LoadLog
    breakdown: Breakdown | None  # as the engine itself reports it, for the same model and context
    predicted: Components  # for the context that it has

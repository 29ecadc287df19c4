"""Records of the memory that a running model uses."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.breakdown import Breakdown
from mmd.plan.estimate import Components

Sizes = dict[str, int | None]  # bytes by the names in `Components` and in `Constants.MEASURED`; None if unknown


@dataclass(frozen=True, slots=True)
class LoadLog:
    """Bytes of the memory that the model runs in, as its engine logs them; None if the log does not contain them."""

    context: int | None = None  # tokens
    weights_bytes: int | None = None
    kv_bytes: int | None = None  # of the whole context
    state_bytes: int | None = None
    compute_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """The measured and the predicted memory of one running engine."""

    gpus: int  # how many it uses; 0 on the CPU
    total_bytes: int | None  # of its processes, on the GPUs or in RAM; None if the driver does not report it
    log: LoadLog
    breakdown: Breakdown | None  # as the engine itself reports it, for the same model and context
    predicted: Components  # for the context that it has

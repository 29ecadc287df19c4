"""The constants of vLLM's memory: vLLM 0.20 to 0.32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmd.plan.constants import Constants
from mmd.quantities import MIB


@dataclass(frozen=True, slots=True)
class VllmConstants(Constants):
    """`compute_factor` is that of the sampler's share of the activations."""

    MEASURED: ClassVar[Mapping[str, str]] = {
        **Constants.MEASURED,
        "non_torch_bytes": "",
        "graphs_bytes": "graphs_error_bytes",
    }

    # On the CPU: Python, torch and what it has compiled.
    process_bytes: int = 1200 * MIB
    process_error_bytes: int = 400 * MIB
    compute_error: float = 0.5
    compute_error_bytes: int = 0
    # The sampler's, for each sequence and word of the vocabulary. Fits six rows of llm-d on H100 within 0.6 %; the
    # FlashInfer sampler takes half.
    activation_bytes_per_logit: float = 38.3
    # Memory that torch does not know of, for each GPU: alone, and among several.
    non_torch_bytes: int = 133 * MIB
    non_torch_among_several_bytes: int = 563 * MIB
    # 0.1 to 1 GiB; for the few sequences that mmd asks for, the lower half.
    graphs_bytes: int = 400 * MIB
    graphs_error_bytes: int = 250 * MIB
    unknown_compute_bytes: int = 1003 * MIB  # with graphs and libraries a GiB and a half

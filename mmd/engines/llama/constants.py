"""The constants of llama.cpp's memory."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.constants import Constants


@dataclass(frozen=True, slots=True)
class LlamaConstants(Constants):
    """The formula for compute buffers is exact for b11434 without a GPU."""

    # What an image takes beside the projector: Qwen3.6's 888 MiB computed in 248.
    projector_factor: float = 1.35
    projector_error: float = 0.15

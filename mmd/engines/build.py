"""What an installed engine was compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Build:
    name: str  # for people: "llama-server", "vLLM's torch 2.13.0+cpu"
    devices: tuple[str, ...] | None = None  # GPUs that it can use, by its own account; None if it does not say
    cuda: tuple[int, int] | None = None  # (12, 8); None if it was not built for CUDA, or does not say
    # The compute capability that a GPU needs.
    min_capability: tuple[int, int] = (0, 0)
    gpu_hint: str = ""  # the command that installs a build for GPUs, or a newer one
    old_gpu_hint: str = ""  # the command to use if the GPU is too old for it

    @property
    def is_for_cpu(self) -> bool:
        return self.cuda is None and not self.devices

"""The memory that a model will find when whoever is in its place has gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmd.machine import Gpu, Machine

# What an engine keeps of the VRAM while it sleeps: CUDA's context, graphs and libraries. Reports speak of 1.1 to
# 1.2 GiB for one GPU (vLLM issues 28714 and 32714).
ASLEEP_BYTES = 5 * 1024**3 // 4


def after(machine: Machine, leaving: Mapping[str, int]) -> Machine:
    """`machine` once these units have given the GPU back: unit name -> bytes of VRAM that it keeps on each GPU."""
    return replace(machine, gpus=tuple(_after(gpu, leaving) for gpu in machine.gpus))


def _after(gpu: Gpu, leaving: Mapping[str, int]) -> Gpu:
    free_bytes = gpu.free_bytes
    for unit, kept_bytes in leaving.items():
        uses = [process.used_bytes for process in gpu.processes if process.unit == unit]
        if not uses:
            continue
        if None in uses:  # the driver does not tell: as much as there can be, and the engine itself will look
            return replace(gpu, free_bytes=max(gpu.free_bytes, gpu.total_bytes - kept_bytes))
        free_bytes += max(0, sum(use or 0 for use in uses) - kept_bytes)
    return replace(gpu, free_bytes=min(free_bytes, gpu.total_bytes))

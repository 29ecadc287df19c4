"""Predict the free memory of the machine after some models have released the GPU (stopped or asleep)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmd.machine import Gpu, Machine
from mmd.plan.launch import Launch
from mmd.quantities import GIB

# VRAM that an engine keeps while it sleeps: CUDA's context, graphs and libraries. Reports give 1.1 to
# 1.2 GiB for one GPU (vLLM issues 28714 and 32714).
ASLEEP_BYTES = 5 * GIB // 4


@dataclass(frozen=True, slots=True)
class ReleaseEffect:
    """How much VRAM a unit keeps, and how much RAM it takes, when it releases the GPU."""

    keeps_vram_bytes: int = 0  # on each GPU that it uses
    takes_ram_bytes: int = 0


def release_effect(launch: Launch) -> ReleaseEffect:
    """Return the effect of a release: a sleeping model keeps its context in VRAM and moves its weights to RAM."""
    if launch.sleep is None or not launch.uses_gpu:
        return ReleaseEffect()
    return ReleaseEffect(ASLEEP_BYTES, launch.sleep.weights_bytes)


def machine_after_release(machine: Machine, leaving: Mapping[str, ReleaseEffect]) -> Machine:
    """Return `machine` as it will be after these units have released the GPU."""
    taken_bytes = sum(one.takes_ram_bytes for one in leaving.values())
    return replace(
        machine,
        gpus=tuple(_after(gpu, leaving) for gpu in machine.gpus),
        ram_available_bytes=max(0, machine.ram_available_bytes - taken_bytes),
    )


def _after(gpu: Gpu, leaving: Mapping[str, ReleaseEffect]) -> Gpu:
    free_bytes = gpu.free_bytes
    for unit, one in leaving.items():
        uses = [process.used_bytes for process in gpu.processes if process.unit == unit]
        if not uses:
            continue
        if None in uses:  # unknown to the driver: assume the maximum, since the engine checks for itself
            return replace(gpu, free_bytes=max(gpu.free_bytes, gpu.total_bytes - one.keeps_vram_bytes))
        free_bytes += max(0, sum(use or 0 for use in uses) - one.keeps_vram_bytes)
    return replace(gpu, free_bytes=min(free_bytes, gpu.total_bytes))

"""The memory that a model will find when whoever is in its place has gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmd.machine import Gpu, Machine
from mmd.plan.launch import Launch
from mmd.quantities import GIB

# What an engine keeps of the VRAM while it sleeps: CUDA's context, graphs and libraries. Reports speak of 1.1 to
# 1.2 GiB for one GPU (vLLM issues 28714 and 32714).
_ASLEEP_BYTES = 5 * GIB // 4


@dataclass(frozen=True, slots=True)
class ReleaseEffect:
    """What a unit does not give back, and what it takes for that, when it leaves the GPU."""

    keeps_vram_bytes: int = 0  # on each GPU that it uses
    takes_ram_bytes: int = 0


def leaves(launch: Launch) -> ReleaseEffect:
    """A model that sleeps keeps its context on the GPU, and takes its weights into the RAM."""
    if launch.sleep is None or not launch.uses_gpu:
        return ReleaseEffect()
    return ReleaseEffect(_ASLEEP_BYTES, launch.sleep.weights_bytes)


def after(machine: Machine, leaving: Mapping[str, ReleaseEffect]) -> Machine:
    """`machine` once these units have given the GPU back."""
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
        if None in uses:  # the driver does not tell: as much as there can be, and the engine itself will look
            return replace(gpu, free_bytes=max(gpu.free_bytes, gpu.total_bytes - one.keeps_vram_bytes))
        free_bytes += max(0, sum(use or 0 for use in uses) - one.keeps_vram_bytes)
    return replace(gpu, free_bytes=min(free_bytes, gpu.total_bytes))

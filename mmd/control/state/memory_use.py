"""How much memory of this machine is in use."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.control.state.proc_memory import MEMORY, parse_ram
from mmd.machine import GpuUse, Nvml
from mmd.plan.pressure import Ram


@dataclass(frozen=True, slots=True)
class Memory:
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Resources:
    vram: Memory  # summed over the GPUs; zeros on a machine without one
    ram: Memory
    gpus: tuple[GpuUse, ...]


def read_resources(nvml: Nvml) -> Resources:
    """Read how much memory is in use. Blocks for as long as NVIDIA's driver does."""
    return summed(nvml.memory(), parse_ram(MEMORY.read_text("ascii")))


def summed(gpus: tuple[GpuUse, ...], ram: Ram) -> Resources:
    return Resources(
        vram=Memory(sum(gpu.used_bytes for gpu in gpus), sum(gpu.total_bytes for gpu in gpus)),
        ram=Memory(ram.total_bytes - ram.available_bytes, ram.total_bytes),
        gpus=gpus,
    )

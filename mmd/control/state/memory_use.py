"""How much memory of this machine is in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmd.control.state.proc_memory import MEMORY, parse_ram
from mmd.machine import Gpu, GpuUse, Nvml
from mmd.plan.pressure import Ram
from mmd.quantities import GIB


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in GiB, and in bytes."""

    used: float
    total: float
    used_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, used_bytes: int, total_bytes: int) -> Memory:
        return cls(round(used_bytes / GIB, 2), round(total_bytes / GIB, 2), used_bytes, total_bytes)


@dataclass(frozen=True, slots=True)
class Resources:
    """Memory in use. `vram` is the sum over the GPUs: zeros on a machine without one."""

    vram: Memory
    ram: Memory
    gpus: tuple[GpuUse, ...]


def read_resources(nvml: Nvml) -> Resources:
    """Read how much memory is in use. Blocks for as long as NVIDIA's driver does."""
    return summed(nvml.memory(), read_ram())


def read_ram() -> Ram:
    return parse_ram(MEMORY.read_text("ascii"))


def gpu_uses(gpus: Iterable[Gpu]) -> tuple[GpuUse, ...]:
    return tuple(GpuUse(gpu.name, gpu.uuid, gpu.total_bytes - gpu.free_bytes, gpu.total_bytes) for gpu in gpus)


def summed(gpus: tuple[GpuUse, ...], ram: Ram) -> Resources:
    return Resources(
        vram=Memory.of(sum(gpu.used_bytes for gpu in gpus), sum(gpu.total_bytes for gpu in gpus)),
        ram=Memory.of(ram.total_bytes - ram.available_bytes, ram.total_bytes),
        gpus=gpus,
    )

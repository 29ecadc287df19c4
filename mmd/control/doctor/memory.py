"""Check RAM: how much is available for models, and what limits its use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.control.state.status import Sleeping
from mmd.quantities import GIB, size_text
from mmd.registry.record import Model

_STRICT = 2  # vm.overcommit_memory: the kernel grants no more memory than exists
_MIN_AVAILABLE = 0.1  # of all RAM
# These kill large processes when memory gets short, before the kernel does.
_WATCHERS = ("earlyoom", "systemd-oomd", "oomd")
_NAME_LENGTH = 15  # maximum length in /proc/PID/comm


@dataclass(frozen=True, slots=True)
class RamState:
    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    overcommit: int  # vm.overcommit_memory
    watchers: tuple[str, ...]


def read_ram() -> RamState:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return RamState(
        total_bytes=memory.total,
        available_bytes=memory.available,
        swap_total_bytes=swap.total,
        swap_used_bytes=swap.used,
        overcommit=int(Path("/proc/sys/vm/overcommit_memory").read_text("ascii")),
        watchers=tuple(sorted(_running() & {name[:_NAME_LENGTH] for name in _WATCHERS})),
    )


def _running() -> set[str]:
    names = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.add(comm.read_text("utf-8", "replace").strip())
        except (FileNotFoundError, ProcessLookupError):
            continue  # just ended
    return names


def check_ram(
    ram: RamState, models: Sequence[Model], sleeping: Sequence[Sleeping], *, has_gpu: bool
) -> Iterator[Diagnosis]:
    message = _summary(ram, sleeping)
    largest = max(models, key=lambda model: model.facts.weights_bytes, default=None)
    if ram.available_bytes < ram.total_bytes * _MIN_AVAILABLE:
        free = f"mmd stop {max(sleeping, key=lambda one: one.ram_bytes).id}" if sleeping else "ps -eo rss,pid,user,args"
        yield warning(message, free if sleeping else f"{free} --sort=-rss | head   # the largest processes")
    elif largest and not has_gpu and largest.facts.weights_bytes > ram.total_bytes:
        yield warning(
            f"{message}; {largest.id} has {size_text(largest.facts.weights_bytes)} of weights, so the CPU would "
            "read them from disk again and again",
            f"mmd estimate {largest.id}   # lists what fits instead",
        )
    elif ram.overcommit == _STRICT:
        yield warning(
            f"{message}; vm.overcommit_memory is 2, so engines fail to reserve address space that they never use",
            "sudo sysctl vm.overcommit_memory=0",
        )
    else:
        yield ok(message)


def _summary(ram: RamState, sleeping: Sequence[Sleeping]) -> str:
    parts = [f"{ram.available_bytes / GIB:.1f} of {ram.total_bytes / GIB:.1f} GiB available"]
    if sleeping:
        held_bytes = sum(one.ram_bytes for one in sleeping)
        parts.append(f"{', '.join(one.id for one in sleeping)} asleep with {size_text(held_bytes)}")
    if ram.swap_used_bytes > GIB:
        parts.append(f"{ram.swap_used_bytes / GIB:.1f} of {ram.swap_total_bytes / GIB:.1f} GiB swap used")
    if ram.watchers:
        parts.append(f"{', '.join(ram.watchers)} may kill an engine that grows")
    return "; ".join(parts)

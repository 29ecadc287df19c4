"""Memory of the GPUs: what is free, and who holds the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.machine import Gpu, GpuProcess
from mmd.plan.fit import GIB
from mmd.units.names import split

# A desktop takes some hundred MiB, and nobody is to be asked to end theirs.
_WORTH_TELLING = 0.1
_LEAST_BYTES = GIB
_NAMED = 3


def check_vram(gpus: Iterable[Gpu]) -> Iterator[Diagnosis]:
    return map(_check_gpu, gpus)


def _check_gpu(gpu: Gpu) -> Diagnosis:
    ours = [process for process in gpu.processes if split(process.unit)]
    strangers = [process for process in gpu.processes if process not in ours]
    strangers.sort(key=lambda process: process.used_bytes or 0, reverse=True)
    held = ", ".join([*map(_of_mmd, ours), *map(_of_stranger, strangers[:_NAMED])])
    free = f"{gpu.name}: {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free"
    message = f"{free}; {held}" if held else free
    much_bytes = max(_LEAST_BYTES, gpu.total_bytes * _WORTH_TELLING)
    if sum(process.used_bytes or 0 for process in strangers) > much_bytes:
        return warning(message, _how_to_free(strangers[0]))
    is_told = any(process.used_bytes is not None for process in gpu.processes)
    if not is_told and not ours and gpu.total_bytes - gpu.free_bytes > much_bytes:
        return warning(f"{message}; the driver does not tell who has how much", "nvidia-smi   # on the host")
    return ok(message)


def _of_mmd(process: GpuProcess) -> str:
    unit = split(process.unit)
    assert unit is not None
    return f"{unit[1]}{_has(process)}"


def _of_stranger(process: GpuProcess) -> str:
    return f"{process.name or 'a process of another container'}{_has(process)} (pid {process.pid})"


def _has(process: GpuProcess) -> str:
    return "" if process.used_bytes is None else f" has {process.used_bytes / GIB:.1f} GiB"


def _how_to_free(process: GpuProcess) -> str:
    """By its unit where it has one of its own: it would come back otherwise."""
    if process.unit.endswith(".service") and not process.unit.startswith("user@"):
        return f"systemctl status {process.pid}   # it is {quote(process.unit)}: systemctl [--user] stop it"
    return f"ps -fp {process.pid}   # and if it may end: kill {process.pid}"

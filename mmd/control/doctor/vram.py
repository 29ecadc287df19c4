"""Check GPU memory: what is free, and which processes hold the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.machine import Gpu, GpuProcess
from mmd.quantities import GIB, size_text
from mmd.units.names import split

# A desktop takes some hundred MiB: that is not worth a warning.
_MIN_SHARE = 0.1  # of the GPU's memory
_MIN_BYTES = GIB
_MAX_NAMED = 3


def check_vram(gpus: Iterable[Gpu]) -> Iterator[Diagnosis]:
    return map(_check_gpu, gpus)


def _check_gpu(gpu: Gpu) -> Diagnosis:
    ours = [process for process in gpu.processes if split(process.unit)]
    strangers = [process for process in gpu.processes if process not in ours]
    strangers.sort(key=lambda process: process.used_bytes or 0, reverse=True)
    held = ", ".join([*map(_of_mmd, ours), *map(_of_stranger, strangers[:_MAX_NAMED])])
    free = f"{gpu.name}: {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free"
    message = f"{free}; {held}" if held else free
    much_bytes = max(_MIN_BYTES, gpu.total_bytes * _MIN_SHARE)
    if sum(process.used_bytes or 0 for process in strangers) > much_bytes:
        return warning(message, _how_to_free(strangers[0]))
    is_known = any(process.used_bytes is not None for process in gpu.processes)
    if not is_known and not ours and gpu.total_bytes - gpu.free_bytes > much_bytes:
        return warning(f"{message}; the driver does not report use per process", "nvidia-smi   # on the host")
    return ok(message)


def _of_mmd(process: GpuProcess) -> str:
    unit = split(process.unit)
    assert unit is not None
    return f"{unit[1]}{_has(process)}"


def _of_stranger(process: GpuProcess) -> str:
    return f"{process.name or 'a process in another container'}{_has(process)} (pid {process.pid})"


def _has(process: GpuProcess) -> str:
    return "" if process.used_bytes is None else f" has {size_text(process.used_bytes)}"


def _how_to_free(process: GpuProcess) -> str:
    """Name the unit if the process has its own: systemd might restart a killed process."""
    if process.unit.endswith(".service") and not process.unit.startswith("user@"):
        return f"systemctl status {process.pid}   # to stop it: systemctl [--user] stop {quote(process.unit)}"
    return f"ps -fp {process.pid}   # if you do not need it: kill {process.pid}"

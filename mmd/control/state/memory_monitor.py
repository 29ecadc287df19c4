"""What memory is used, for those who ask every few seconds."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any

from mmd.control.state.proc_memory import MEMORY, parse_ram
from mmd.control.state.status import GpuUse, Memory, Resources

_log = logging.getLogger(__name__)


class MemoryMonitor:
    """Keeps NVML open: to start it takes as long as a hundred readings, and seconds where nothing else uses the GPU.

    Can be read in several threads at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._gpus: tuple[_Gpu, ...] | None = None  # None while NVML is not open
        self._is_failing = False

    def read(self) -> Resources:
        """Blocks for as long as the driver does."""
        with self._lock:
            gpus = self._read_gpus()
        ram = parse_ram(MEMORY.read_text("ascii"))
        return Resources(
            vram=Memory(sum(gpu.used_bytes for gpu in gpus), sum(gpu.total_bytes for gpu in gpus)),
            ram=Memory(ram.total_bytes - ram.available_bytes, ram.total_bytes),
            gpus=gpus,
        )

    def close(self) -> None:
        if self._gpus is not None:
            import pynvml

            self._gpus = None
            pynvml.nvmlShutdown()

    def _read_gpus(self) -> tuple[GpuUse, ...]:
        if self._gpus is None and not _has_driver():
            return ()
        import pynvml

        try:
            if self._gpus is None:
                self._gpus = _open(pynvml)
            found = tuple(gpu.read() for gpu in self._gpus)
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return ()
        except pynvml.NVMLError as error:  # updated without a reboot, or the GPU has fallen off the bus
            self.close()
            if not self._is_failing:
                _log.warning("NVIDIA's driver does not answer, so no VRAM is told: %s", error)
            self._is_failing = True
            return ()
        self._is_failing = False
        return found


class _Gpu:
    def __init__(self, pynvml: Any, index: int) -> None:
        self._pynvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._name = pynvml.nvmlDeviceGetName(self._handle)
        self._uuid = pynvml.nvmlDeviceGetUUID(self._handle)

    def read(self) -> GpuUse:
        memory = self._pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        return GpuUse(self._name, self._uuid, memory.total - memory.free, memory.total)


def _open(pynvml: Any) -> tuple[_Gpu, ...]:
    pynvml.nvmlInit()
    try:
        return tuple(_Gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        pynvml.nvmlShutdown()
        raise


def _has_driver() -> bool:
    from ctypes import CDLL

    try:
        CDLL("libnvidia-ml.so.1")  # what pynvml loads; where it is not, importing pynvml is 7 ms for nothing
    except OSError:
        return False
    return True

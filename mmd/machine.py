"""This machine's hardware as one frozen record, which can also come from a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from mmd.codec import decode, encode, require_counts
from mmd.errors import WrongUsage

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuProcess:
    pid: int
    used_bytes: int | None  # None if the driver does not report it: in containers, with some drivers
    name: str
    unit: str = ""  # its systemd unit, like "mmd-model@qwen3.service"; "" if it cannot be seen

    def __post_init__(self) -> None:
        require_counts(self, "pid", *(["used_bytes"] if self.used_bytes is not None else []))


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    name: str
    uuid: str
    compute_capability: str  # "8.9"
    total_bytes: int
    free_bytes: int  # memory that the driver reserves counts as used
    processes: tuple[GpuProcess, ...]

    def __post_init__(self) -> None:
        require_counts(self, "index", "total_bytes", "free_bytes")


@dataclass(frozen=True, slots=True)
class Machine:
    gpus: tuple[Gpu, ...]  # NVIDIA's; without one, models run on the CPU
    driver: str  # NVIDIA's version, "" without one
    ram_total_bytes: int
    ram_available_bytes: int
    cpu: str
    cpu_cores: int  # physical
    cpu_threads: int
    cpu_features: tuple[str, ...] = ()  # as /proc/cpuinfo spells them, of those that decide how weights are laid out

    def __post_init__(self) -> None:
        require_counts(self, "ram_total_bytes", "ram_available_bytes", "cpu_cores", "cpu_threads")


@dataclass(frozen=True, slots=True)
class GpuUse:
    name: str
    uuid: str
    used_bytes: int
    total_bytes: int


def read_machine(nvml: Nvml | None = None) -> Machine:
    """Read this machine now. Without `nvml` the library is opened for this reading and closed again.

    Blocks for as long as the driver does: seconds while it initialises a GPU.
    """
    import psutil

    driver, gpus = nvml.gpus() if nvml is not None else _read_gpus_once()
    memory = psutil.virtual_memory()
    threads = psutil.cpu_count() or 1
    return Machine(
        gpus=gpus,
        driver=driver,
        ram_total_bytes=memory.total,
        ram_available_bytes=memory.available,
        cpu=_cpu_name(),
        cpu_cores=psutil.cpu_count(logical=False) or threads,  # unknown on some virtual machines
        cpu_threads=threads,
        cpu_features=_cpu_features(),
    )


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in (
            "model name",
            "Model",
        ):  # "Model" on a Raspberry Pi; many ARM machines name nothing
            return value.strip()
    import platform

    return platform.machine()


# By these llama.cpp chooses the layout of weights that it reads into RAM: `mmd.engines.llama.repack`.
_FEATURES = ("amx_int8", "avx512_vnni", "avx512f", "avx2", "i8mm", "asimddp")


def _cpu_features() -> tuple[str, ...]:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM
            has = set(value.split())
            return tuple(name for name in _FEATURES if name in has)
    return ()


# -- NVML


class Nvml:
    """NVIDIA's management library, opened by the first reading and kept open until `close`.

    To open it takes as long as a hundred readings, and seconds if no other program uses the GPU. Every call blocks for
    as long as the driver does. Use it from one thread. A driver that is missing or fails counts as no GPU.
    """

    def __init__(self) -> None:
        self._pynvml: Any = None  # None while the library is closed
        self._handles: tuple[Any, ...] = ()

    def gpus(self) -> tuple[str, tuple[Gpu, ...]]:
        """Return the driver's version and the GPUs; ("", ()) without a driver."""
        return self._read(self._gpus) or ("", ())

    def memory(self) -> tuple[GpuUse, ...]:
        """Return the memory in use on each GPU: a tenth of the work of `gpus`."""
        return self._read(self._memory) or ()

    def close(self) -> None:
        pynvml, self._pynvml, self._handles = self._pynvml, None, ()
        if pynvml is not None:
            pynvml.nvmlShutdown()

    def _read(self, read: Callable[[], T]) -> T | None:
        """Return None without a driver that answers."""
        if self._pynvml is None and not _has_driver():
            return None
        import pynvml

        was_open = self._pynvml is not None
        try:
            self._open()
            found = read()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return None
        except pynvml.NVMLError as error:
            # The driver fails, for example after an upgrade without a reboot. Models can still run on the CPU.
            with suppress(pynvml.NVMLError):
                self.close()  # the next reading opens it again
            if was_open:  # handles from before a reset or a suspend may be stale, and no plan may miss the GPU for that
                return self._read(read)
            _warn_once(f"NVIDIA's driver does not answer, so no GPU is used: {error}; nvidia-smi may say more")
            return None
        _warn_once.cache_clear()
        return found

    def _open(self) -> None:
        import pynvml

        if self._pynvml is not None:
            return
        pynvml.nvmlInit()
        self._pynvml = pynvml
        self._handles = tuple(map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount())))

    def _gpus(self) -> tuple[str, tuple[Gpu, ...]]:
        gpus = tuple(_read_gpu(self._pynvml, index, handle) for index, handle in enumerate(self._handles))
        return _text(self._pynvml.nvmlSystemGetDriverVersion()), gpus

    def _memory(self) -> tuple[GpuUse, ...]:
        return tuple(_read_memory(self._pynvml, handle) for handle in self._handles)


def _read_gpus_once() -> tuple[str, tuple[Gpu, ...]]:
    nvml = Nvml()
    try:
        return nvml.gpus()
    finally:
        nvml.close()


def _has_driver() -> bool:
    from ctypes import CDLL

    try:
        CDLL("libnvidia-ml.so.1")  # what pynvml loads; without it, importing pynvml costs 7 ms for nothing
    except OSError:
        return False
    return True


@cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def _read_memory(pynvml: Any, handle: Any) -> GpuUse:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name, uuid = _text(pynvml.nvmlDeviceGetName(handle)), _text(pynvml.nvmlDeviceGetUUID(handle))
    return GpuUse(name, uuid, memory.total - memory.free, memory.total)


def _read_gpu(pynvml: Any, index: int, handle: Any) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        compute_capability=f"{major}.{minor}",
        total_bytes=memory.total,
        free_bytes=memory.free,
        processes=_read_processes(pynvml, handle),
    )


def _read_processes(pynvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    """Return the processes on the GPU. One that computes and draws is in both of the driver's lists, with one sum."""
    found: dict[int, GpuProcess] = {}
    for ask in (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        try:
            running = ask(handle)
        except (
            pynvml.NVMLError_NotSupported,  # WSL and MIG devices have no such list
            pynvml.NVMLError_NoPermission,
            pynvml.NVMLError_FunctionNotFound,  # drivers before 510
        ):
            continue
        for process in running:
            pid = process.pid
            found[pid] = GpuProcess(pid, process.usedGpuMemory, _process_name(pid), unit_of_process(pid))
    return tuple(found[pid] for pid in sorted(found))


def _process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # it has just ended, or lives in another container


def unit_of_process(pid: int) -> str:
    """Return the innermost systemd unit of a process, "" if none can be seen.

    An engine may make control groups of its own below its unit's.
    """
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The line of the hierarchy that systemd manages: "0::/user.slice/…", or "1:name=systemd:/…" on old machines.
    paths = [line.split(":", 2)[2] for line in groups.splitlines() if line.startswith("0::") or "name=systemd" in line]
    parts = reversed("/".join(paths).split("/"))
    return next((part for part in parts if part.endswith((".service", ".scope"))), "")


def _text(value: str | bytes) -> str:
    # pynvml has returned either, by its version.
    return value.decode(errors="replace") if isinstance(value, bytes) else value


# -- to and from JSON


def to_json(machine: Machine) -> str:
    return encode(machine, indent=2).decode()


def from_json(text: str, *, source: str = "this") -> Machine:
    """Return the machine in the text of `to_json`. Raise WrongUsage, which names the source and the key."""
    try:
        return decode(text.encode(), Machine)
    except ValueError as error:
        message = f"{source} does not describe a machine: {error}"
        raise WrongUsage(message, hint="mmd machine --json   # shows the format") from error


def load_machine(path: Path) -> Machine:
    """Return the machine in a file, for `--machine FILE`. Raise WrongUsage."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise WrongUsage(f"the machine file {path} cannot be read: {reason}", hint=f"ls -l {path}") from error
    return from_json(text, source=str(path))

"""What NVIDIA's driver says of processes on its GPUs: NVML by ctypes, as few functions as it takes."""

from ctypes import CDLL, POINTER, Structure, byref, c_uint, c_ulonglong, c_void_p, cast

_SUCCESS = 0
_INSUFFICIENT_SIZE = 7
_NOT_TOLD = 2**64 - 1  # the driver knows the process and keeps its memory to itself
_ROOM = 64  # processes on one GPU; more are asked for again


class _NvmlMemory(Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _NvmlProcess(Structure):
    _fields_ = (
        ("pid", c_uint),
        ("used_bytes", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    )


class Vram:
    """Raises OSError where there is no driver that answers."""

    def __init__(self) -> None:
        self._nvml = CDLL("libnvidia-ml.so.1")
        if code := self._nvml.nvmlInit_v2():
            raise OSError(f"NVML does not start: error {code}")
        count = c_uint()
        self._nvml.nvmlDeviceGetCount_v2(byref(count))
        self._devices: list[c_void_p] = []
        for index in range(count.value):
            device = c_void_p()
            if self._nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device)) == _SUCCESS:
                self._devices.append(device)

    def lists(self, pids: set[int]) -> bool:
        """Whether one of these processes is on a GPU."""
        return any(process.pid in pids for process in self._processes())

    def used_bytes(self, pids: set[int]) -> int | None:
        """What these processes hold together; None where the driver does not tell, or knows none of them: in a
        container it counts processes by other numbers.
        """
        theirs = [int(process.used_bytes) for process in self._processes() if process.pid in pids]
        return sum(theirs) if theirs and _NOT_TOLD not in theirs else None

    def free_bytes(self) -> int:
        """Of all GPUs together."""
        total = 0
        for device in self._devices:
            memory = _NvmlMemory()
            if self._nvml.nvmlDeviceGetMemoryInfo(device, byref(memory)) == _SUCCESS:
                total += int(memory.free)
        return total

    def _processes(self) -> list[_NvmlProcess]:
        return [process for device in self._devices for process in self._of(device)]

    def _of(self, device: c_void_p) -> list[_NvmlProcess]:
        """Its computing processes; none where it has no such list, as on WSL."""
        room = _ROOM
        while True:
            count = c_uint(room)
            found = (_NvmlProcess * room)()
            first = cast(found, POINTER(_NvmlProcess))
            code = self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), first)
            if code != _INSUFFICIENT_SIZE:
                return list(found[: count.value]) if code == _SUCCESS else []
            room = 2 * count.value


def read_vram() -> Vram | None:
    """None, and a line in the journal, where nothing can be learned."""
    try:
        return Vram()
    except (OSError, AttributeError) as error:  # AttributeError: a driver from before 2021 lacks a function
        print(f"What is on the GPU is not known: {error}", flush=True)
        return None

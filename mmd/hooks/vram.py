"""The memory of processes on NVIDIA's GPUs: NVML through ctypes, with as few functions as possible."""

from ctypes import CDLL, POINTER, Structure, byref, c_uint, c_ulonglong, c_void_p, cast, create_string_buffer

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from collections.abc import Collection

_SUCCESS = 0
_INSUFFICIENT_SIZE = 7
_NOT_TOLD = 2**64 - 1  # the driver lists the process without its memory
_UUID_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE
_ROOM = 64  # processes on one GPU in the first call; if there are more, the call is repeated


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
    """A connection to NVML, open until the hook exits. Raises OSError if the driver is missing or fails.

    `devices` names the GPUs to read, by the starts of their UUIDs; if it names no GPU, all GPUs are read.
    """

    def __init__(self, devices: "Collection[str]" = ()) -> None:
        self._nvml = CDLL("libnvidia-ml.so.1")
        if code := self._nvml.nvmlInit_v2():
            raise OSError(f"NVML failed to initialise: error {code}")
        count = c_uint()
        self._nvml.nvmlDeviceGetCount_v2(byref(count))
        self._devices: list[c_void_p] = []
        wanted = [name for name in devices if name != "ram"]
        for index in range(count.value):
            device = c_void_p()
            if self._nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device)) == _SUCCESS and self._is_among(
                device, wanted
            ):
                self._devices.append(device)

    def _is_among(self, device: c_void_p, names: list[str]) -> bool:
        if not names:
            return True
        text = create_string_buffer(_UUID_BYTES)
        code = self._nvml.nvmlDeviceGetUUID(device, text, _UUID_BYTES)
        return code != _SUCCESS or any(text.value.decode("ascii").startswith(name) for name in names)

    def pids(self) -> set[int]:
        """Return the processes on the GPUs."""
        return {int(process.pid) for process in self._processes()}

    def lists(self, pids: set[int]) -> bool:
        """True if one of these processes is on a GPU."""
        return any(process.pid in pids for process in self._processes())

    def used_bytes(self, pids: set[int]) -> int | None:
        """Return the memory of these processes together; None if the driver does not report it.

        In a container the driver has other process numbers, so it does not know these.
        """
        theirs = [int(process.used_bytes) for process in self._processes() if process.pid in pids]
        return sum(theirs) if theirs and _NOT_TOLD not in theirs else None

    def free_bytes(self) -> int:
        """Return the free memory of these GPUs together."""
        total = 0
        for device in self._devices:
            memory = _NvmlMemory()
            if self._nvml.nvmlDeviceGetMemoryInfo(device, byref(memory)) == _SUCCESS:
                total += int(memory.free)
        return total

    def _processes(self) -> list[_NvmlProcess]:
        return [process for device in self._devices for process in self._of(device)]

    def _of(self, device: c_void_p) -> list[_NvmlProcess]:
        """Return the computing processes of a GPU; [] if the driver has no such list, as on WSL."""
        room = _ROOM
        while True:
            count = c_uint(room)
            found = (_NvmlProcess * room)()
            first = cast(found, POINTER(_NvmlProcess))
            code = self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), first)
            if code != _INSUFFICIENT_SIZE:
                return list(found[: count.value]) if code == _SUCCESS else []
            room = 2 * count.value


def read_vram(devices: "Collection[str]" = ()) -> Vram | None:
    """Open NVML; log the reason and return None if that fails."""
    try:
        return Vram(devices)
    except (OSError, AttributeError) as error:  # AttributeError: a driver from before 2021 lacks a function
        print(f"The processes on the GPU cannot be read: {error}", flush=True)
        return None

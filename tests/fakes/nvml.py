"""GPUs of the fake NVML, for this process and for what it starts."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.fakes.vram import MIB

_HERE = Path(__file__).parent
_GIB = 1024**3


@cache
def library_folder() -> Path:
    """Return a folder with a `libnvidia-ml.so.1` that says what the file named by MMD_FAKE_NVML says."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "these tests need a C compiler: apt-get install gcc libc6-dev"
    folder = Path(tempfile.mkdtemp(prefix="mmd-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    name = "libnvidia-ml.so.1"
    words = ("-Wall", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, _HERE / "nvml.c")
    subprocess.run((compiler, *words), check=True)
    return folder


@cache
def use_in_this_process() -> None:
    """Load the library, so that mmd in this process finds it by its name. Without MMD_FAKE_NVML it has no driver."""
    ctypes.CDLL(str(library_folder() / "libnvidia-ml.so.1"))


class FakeGpus:
    """GPUs of these sizes with nothing on them, and the driver that frees the memory of dead processes late."""

    def __init__(self, state: Path, sizes_gib: tuple[float, ...]) -> None:
        self.state = state
        self.devices = tuple(f"GPU-{number:08x}" for number in range(0xA0, 0xA0 + len(sizes_gib)))
        self.uuids = tuple(f"{device}-0000-4000-8000-000000000000" for device in self.devices)
        cards = [
            f"card {uuid} {int(size * _GIB)} 8.9 NVIDIA Fake {size:g} GB"
            for uuid, size in zip(self.uuids, sizes_gib, strict=True)
        ]
        self.state.write_text("\n".join(["lags 0", *cards, *("0" for _ in sizes_gib)]) + "\n")
        self._driver = subprocess.Popen([sys.executable, "-I", "-S", str(_HERE / "driver.py"), str(state)])

    @property
    def environment(self) -> dict[str, str]:
        return {"MMD_FAKE_NVML": str(self.state), "LD_LIBRARY_PATH": str(library_folder())}

    def used_mib(self) -> tuple[int, ...]:
        """Return the memory in use on each GPU."""
        lines = [line.split() for line in self.state.read_text().splitlines() if line[:1].isdigit()]
        return tuple(
            (int(used) + sum(int(word.partition(":")[2]) for word in words if word[0] in "@+")) // MIB
            for used, *words in lines
        )

    def allocations(self) -> int:
        """Return how often a process changed what it holds; each was checked."""
        return next(int(line.split()[1]) for line in self.state.read_text().splitlines() if line.startswith("lags "))

    def close(self) -> None:
        self._driver.send_signal(signal.SIGTERM)
        self._driver.wait(10)

"""Memory in use over a fake NVML, in a process of its own: a library is looked for where the process began."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmd.control.state.memory_use import read_resources
from mmd.machine import Nvml

Run = Callable[[str, str], subprocess.CompletedProcess[str]]

BEGIN = """
import os, pathlib
from mmd.control.state.memory_use import read_resources
from mmd.machine import Nvml
state = pathlib.Path(os.environ["MMD_FAKE_NVML"])
nvml = Nvml()
read = lambda: read_resources(nvml)
"""


@pytest.fixture
def run(nvml_folder: Path, tmp_path: Path) -> Run:
    def run(state: str, code: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "nvml").write_text(state)
        environment = os.environ | {"LD_LIBRARY_PATH": str(nvml_folder), "MMD_FAKE_NVML": str(tmp_path / "nvml")}
        return subprocess.run(
            (sys.executable, "-c", BEGIN + code),
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[4])},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

    return run


def test_ram_without_a_gpu() -> None:
    resources = read_resources(Nvml())
    assert 0 < resources.ram.used_bytes < resources.ram.total_bytes
    assert resources.vram.total_bytes == sum(gpu.total_bytes for gpu in resources.gpus)


def test_vram_is_read_again_without_a_new_nvml_init(run: Run) -> None:
    done = run(
        "1000\n",
        "before = read()\n"
        "import pynvml; pynvml.nvmlInit = None\n"
        "state.write_text('4000')\n"
        "after = read()\n"
        "print(after.vram.used_bytes - before.vram.used_bytes, after.vram.total_bytes, len(after.gpus))\n"
        "print(after.gpus[0].name != '', after.gpus[0].used_bytes == after.vram.used_bytes)\n"
        "nvml.close()",
    )
    used, total, count = done.stdout.splitlines()[0].split()
    assert (used, count) == ("3000", "1")
    assert int(total) > 0
    assert done.stdout.splitlines()[1] == "True True"


def test_driver_that_fails_is_told_once_and_asked_again(run: Run) -> None:
    done = run(
        "init 18\n0\n",
        "print(read().gpus, read().gpus)\nstate.write_text('0')\nprint(len(read().gpus))\n",
    )
    assert done.stdout == "() ()\n1\n"
    assert done.stderr.count("mismatch") == 1


def test_driver_that_is_not_loaded_is_nothing_to_tell(run: Run) -> None:
    done = run("init 9\n0\n", "print(read().gpus)")
    assert (done.stdout, done.stderr) == ("()\n", "")

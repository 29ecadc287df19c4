"""Checks of the NVIDIA driver, of GPU memory, and of engine builds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.doctor.diagnosis import Level
from mmd.control.doctor.engines import check_builds, read_build
from mmd.control.doctor.nvidia import Driver, check_driver
from mmd.control.doctor.vram import check_vram
from mmd.control.install.engines import EngineStatus
from mmd.engines.build import Build
from mmd.engines.llama.engine import EMBEDDED, LLAMA_SERVER
from mmd.engines.vllm.torch_build import build_of, torch_build
from mmd.machine import Gpu, GpuProcess
from tests.unit.plan.planned import GIB, machine

ROOT = Path(__file__).parents[4]
READ = "from mmd.control.doctor.nvidia import read_driver as r; d = r(); print(d.error, d.version, d.cuda, len(d.gpus))"

GPUS = machine("rtx4070-12g").gpus
WORKS = Driver(0, "", "580.95.05", "13.0", True, "580.95.05", True, True, True, GPUS)
FAILS = replace(WORKS, error=999, message="Unknown Error", version="", cuda="", gpus=())


@pytest.mark.parametrize(
    ("driver", "state", "says", "hint"),
    [
        (WORKS, Level.OK, "RTX 4070: driver 580.95.05, CUDA up to 13.0", ""),
        (replace(WORKS, gpus=()), Level.WARNING, "reports no GPU", "nvidia-smi"),
        (
            replace(WORKS, has_memory_node=False),
            Level.FAILED,
            "/dev/nvidia-uvm does not exist",
            "sudo modprobe nvidia-uvm",
        ),
        (
            replace(FAILS, error=18, module="550.54.14"),
            Level.FAILED,
            "the kernel runs version 550.54.14 until",
            "sudo reboot",
        ),
        (replace(FAILS, error=12, module="", has_card=False), Level.OK, "no NVIDIA GPU", ""),
        (replace(FAILS, error=9, module=""), Level.WARNING, "its driver is not loaded", "sudo modprobe nvidia"),
        (
            replace(FAILS, error=9, has_nodes=False),
            Level.FAILED,
            "its device nodes in /dev are missing",
            "sudo nvidia-modprobe",
        ),
        (
            replace(FAILS, may_use_nodes=False, group="video"),
            Level.FAILED,
            "you may not open",
            "sudo usermod -aG video $",
        ),
        (
            replace(FAILS, may_use_nodes=False, group="root"),
            Level.FAILED,
            "you may not open",
            "sudo chmod 0666 /dev",
        ),
        (
            replace(FAILS, error=15, message="GPU is lost", module="", has_nodes=False, may_use_nodes=False),
            Level.FAILED,
            "the driver does not answer: GPU is lost",
            "nvidia-smi",
        ),
        (
            replace(FAILS, error=12),
            Level.FAILED,
            "libnvidia-ml.so.1 is not installed",
            "sudo apt install libnvidia-ml1",
        ),
        (FAILS, Level.FAILED, "does not answer: Unknown Error", "nvidia-smi"),
    ],
)
def test_driver_diagnosis(driver: Driver, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_driver(driver)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)
    assert bool(diagnosis.hint) == (state is not Level.OK)


@pytest.mark.parametrize(
    ("nvml", "read"), [("0\n0\n", "0 580.95.05 13.0 2"), ("init 18\n0\n", "18   0"), ("0\nlost\n", "15   0")]
)
def test_driver_is_read(nvml: str, read: str, nvml_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nvml").write_text(nvml)
    environment = {
        "LD_LIBRARY_PATH": str(nvml_folder),
        "MMD_FAKE_NVML": str(tmp_path / "nvml"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        (sys.executable, "-c", READ),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (read, "")


def test_graphics_processes_are_read_too(nvml_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nvml").write_text(f"3000000 %{os.getpid()}:1000000 1:2000000\n")
    environment = {
        "LD_LIBRARY_PATH": str(nvml_folder),
        "MMD_FAKE_NVML": str(tmp_path / "nvml"),
        "PYTHONPATH": str(ROOT),
    }
    code = "from mmd.machine import read_machine as r; print([p.pid for p in r().gpus[0].processes])"
    done = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == str([1, os.getpid()])


def gpu(*processes: GpuProcess, used_bytes: int | None = None) -> Gpu:
    used = sum(one.used_bytes or 0 for one in processes) if used_bytes is None else used_bytes
    return replace(GPUS[0], free_bytes=GPUS[0].total_bytes - used, processes=processes)


OURS = GpuProcess(10, 8 * GIB, "llama-server", "mmd-model@qwen3.service")


@pytest.mark.parametrize(
    ("card", "state", "says", "hint"),
    [
        (GPUS[0], Level.OK, "11.2 of 12.0 GiB free; Xorg has 0.4 GiB (pid 1893), gnome-shell", ""),
        (gpu(OURS), Level.OK, "4.0 of 12.0 GiB free; qwen3 has 8.0 GiB", ""),
        (
            gpu(OURS, GpuProcess(11, 3 * GIB, "python3", "session-2.scope")),
            Level.WARNING,
            "1.0 of 12.0 GiB free; qwen3 has 8.0 GiB, python3 has 3.0 GiB (pid 11)",
            "ps -fp 11",
        ),
        (
            gpu(GpuProcess(12, 5 * GIB, "ollama", "ollama.service")),
            Level.WARNING,
            "ollama has 5.0 GiB",
            "systemctl status 12   # to stop it: systemctl [--user] stop ollama.service",
        ),
        (
            gpu(GpuProcess(13, None, ""), used_bytes=9 * GIB),
            Level.WARNING,
            "does not report use per process",
            "nvidia-smi",
        ),
        (gpu(used_bytes=9 * GIB), Level.WARNING, "does not report", "nvidia-smi"),
        (gpu(), Level.OK, "12.0 of 12.0 GiB free", ""),
    ],
)
def test_gpu_memory_diagnosis(card: Gpu, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_vram([card])
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


# -- engines and the GPU


def engine(name: str, version: str | None = "1.0") -> EngineStatus:
    return EngineStatus(name, version, f"/opt/{name}", "PATH", False, ("gguf",), 0, "", "")


def driver(cuda: str, capability: str) -> Driver:
    return replace(WORKS, cuda=cuda, gpus=(replace(GPUS[0], compute_capability=capability),))


@pytest.mark.parametrize(
    ("cuda", "here", "state", "says"),
    [
        ((12, 8), driver("13.0", "8.9"), Level.OK, "CUDA 12.8, which the driver does"),
        ((12, 9), driver("12.4", "8.9"), Level.OK, "CUDA 12.9"),  # older drivers of the same major version suffice
        ((13, 0), driver("12.8", "8.9"), Level.FAILED, "driver 580.95.05 does CUDA up to 12.8"),
        (
            (12, 6),
            driver("12.8", "12.0"),
            Level.FAILED,
            "does not know the NVIDIA GeForce RTX 4070: it needs 12.8",
        ),
        ((13, 0), driver("13.0", "7.0"), Level.FAILED, "has left behind"),
        ((12, 8), driver("12.8", "7.0"), Level.OK, "CUDA 12.8"),
        ((12, 8), driver("12.8", "6.1"), Level.FAILED, "has left behind"),
        (None, driver("13.0", "8.9"), Level.WARNING, "a build for the CPU"),
    ],
)
def test_torch_against_driver_and_gpu(cuda: tuple[int, int] | None, here: Driver, state: Level, says: str) -> None:
    (diagnosis,) = check_builds([build_of("2.9", cuda)], here)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert bool(diagnosis.hint) == (state is not Level.OK)


@pytest.mark.parametrize(
    ("build", "state", "says"),
    [
        (Build("llama-server", devices=("CUDA0",)), Level.OK, "llama-server uses CUDA0"),
        (Build("llama-server", devices=(), gpu_hint="x"), Level.WARNING, "llama-server is a build for the CPU"),
        (EMBEDDED.read_build(Path("python"), has_gpu=True), Level.WARNING, "the embedded llama.cpp is a build"),
    ],
)
def test_llama_cpp_on_a_machine_with_a_gpu(build: Build, state: Level, says: str) -> None:
    (diagnosis,) = check_builds([build], WORKS)
    assert diagnosis.state is state
    assert says in diagnosis.message


def test_unknown_build_gives_no_diagnosis() -> None:
    assert list(check_builds([None], WORKS)) == []
    assert list(check_builds([build_of("2", None)], replace(WORKS, gpus=()))) == []


def test_build_is_read_of_the_engine_that_serves_a_format() -> None:
    embedded, server = engine("embedded"), engine("llama-server")
    assert read_build(EMBEDDED, [server, embedded], has_gpu=True) is None
    assert read_build(EMBEDDED, [replace(server, version=None), embedded], has_gpu=True) is not None
    assert read_build(LLAMA_SERVER, [embedded], has_gpu=True) is None


def test_gpu_vllm_on_a_machine_without_gpu() -> None:
    (diagnosis,) = check_builds([build_of("2", (12, 8))], replace(FAILS, has_card=False))
    assert (diagnosis.state, diagnosis.hint) == (Level.WARNING, "mmd engine install vllm")


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", build_of("2.13.0+cpu", None)),
        (
            "__version__ = '2.9.0+cu128'\ndebug = False\ncuda: Optional[str] = '12.8'\n",
            build_of("2.9.0+cu128", (12, 8)),
        ),
        ("__version__ = '1.9.0'\ncuda = '10.2'\n", build_of("1.9.0", (10, 2))),
        ("something else", None),
        (None, None),
    ],
)
def test_torch_build(text: str | None, build: Build | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch/version.py").write_text(text)
    assert torch_build(tmp_path) == build

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from mmd.errors import WrongUsage
from mmd.machine import Gpu, GpuProcess, Machine, from_json, load_machine, read_machine, to_json

TESTS = Path(__file__).parents[1]
SNAPSHOTS = sorted((TESTS / "machines").glob("*.json"))
READ = "import logging; logging.basicConfig(); from mmd import machine; print(machine.to_json(machine.read_machine()))"

Nvml = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def read_with_nvml(nvml_folder: Path, tmp_path: Path) -> Nvml:
    """Read the machine in a process of its own, with a fake NVML in the given state."""

    def read(state: str, code: str = READ) -> subprocess.CompletedProcess[str]:
        state_file = tmp_path / "nvml"
        state_file.write_text(state)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(nvml_folder),
            "MMD_FAKE_NVML": str(state_file),
            "PYTHONPATH": str(TESTS.parent),
        }
        return subprocess.run(
            (sys.executable, "-c", code),
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

    return read


def test_this_machine_has_memory_and_processors() -> None:
    machine = read_machine()
    assert 0 < machine.ram_available_bytes <= machine.ram_total_bytes
    assert 1 <= machine.cpu_cores <= machine.cpu_threads
    assert machine.cpu


def test_importing_loads_neither_psutil_nor_nvml() -> None:
    code = "import sys, mmd.machine; print({'psutil', 'pynvml'} & set(sys.modules))"
    shown = subprocess.run((sys.executable, "-c", code), cwd=TESTS.parent, capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_two_gpus_are_read(read_with_nvml: Nvml) -> None:
    machine = from_json(read_with_nvml(f"1073741824 {os.getpid()}:1000000\n0\n").stdout)
    first, second = machine.gpus
    assert machine.driver == "580.95.05"
    assert first == Gpu(
        index=0,
        name="NVIDIA GeForce RTX 4070",
        uuid="GPU-00000000-0000-0000-0000-000000004070",
        compute_capability="8.9",
        total_bytes=12878610432,
        free_bytes=12878610432 - 1073741824,
        processes=(GpuProcess(os.getpid(), 1000000, Path("/proc/self/comm").read_text().strip(), ANY),),
    )
    assert (second.index, second.compute_capability) == (1, "8.6")
    assert second.free_bytes == second.total_bytes
    assert second.processes == ()


def test_process_whose_memory_is_unknown_has_none(read_with_nvml: Nvml) -> None:
    (gpu,) = from_json(read_with_nvml("0 4194304:- 1:5\n").stdout).gpus
    init = Path("/proc/1/comm").read_text().strip()
    assert gpu.processes == (GpuProcess(1, 5, init, ANY), GpuProcess(4194304, None, "", ""))


def test_used_memory_is_read_each_time(read_with_nvml: Nvml) -> None:
    code = (
        "import os, pathlib; from mmd.machine import read_machine\n"
        "before = read_machine().gpus[0].free_bytes\n"
        "pathlib.Path(os.environ['MMD_FAKE_NVML']).write_text('4096')\n"
        "print(before - read_machine().gpus[0].free_bytes)"
    )
    assert read_with_nvml("0\n", code).stdout == "4096\n"


def test_stale_handles_are_opened_again_at_once(read_with_nvml: Nvml) -> None:
    code = """if True:
        import pynvml
        from mmd.machine import Nvml
        nvml = Nvml()
        assert len(nvml.gpus()[1]) == len(nvml.memory()) == 1
        name, init, inits = pynvml.nvmlDeviceGetName, pynvml.nvmlInit, []
        def name_unless_stale(handle):
            if not inits:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
            return name(handle)
        pynvml.nvmlDeviceGetName = name_unless_stale
        pynvml.nvmlInit = lambda: (inits.append(1), init())
        print(len(nvml.gpus()[1]), len(nvml.memory()), len(inits))
    """
    read = read_with_nvml("0\n", code)
    assert read.stdout == "1 1 1\n"
    assert read.stderr == ""


def test_driver_without_gpus_is_kept(read_with_nvml: Nvml) -> None:
    machine = from_json(read_with_nvml("").stdout)
    assert (machine.driver, machine.gpus) == ("580.95.05", ())


def test_driver_not_loaded_means_no_gpu_and_no_warning(read_with_nvml: Nvml) -> None:
    read = read_with_nvml("init 9\n0\n")
    assert from_json(read.stdout).gpus == ()
    assert read.stderr == ""


def test_failing_driver_means_no_gpu_and_one_warning(read_with_nvml: Nvml) -> None:
    read = read_with_nvml("init 18\n0\n", READ.replace("print", "machine.read_machine(); print"))
    assert from_json(read.stdout).gpus == ()
    assert read.stderr.count("version mismatch") == 1


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
def test_snapshot_survives_the_round_trip(path: Path) -> None:
    machine = load_machine(path)
    assert to_json(machine) == path.read_text()
    assert all(gpu.free_bytes <= gpu.total_bytes for gpu in machine.gpus)


def test_snapshots_differ_in_their_gpus() -> None:
    names = {path.stem: [gpu.name for gpu in load_machine(path).gpus] for path in SNAPSHOTS}
    assert names == {
        "cpu-only": [],
        "rtx4070-12g": ["NVIDIA GeForce RTX 4070"],
        "rtx4090-24g": ["NVIDIA GeForce RTX 4090"],
    }


def record(**changes: Any) -> dict[str, Any]:
    gpu = Gpu(0, "card", "GPU-1", "8.9", 10, 5, (GpuProcess(1, None, "x"),))
    known = json.loads(to_json(Machine((gpu,), "580", 100, 50, "cpu", 4, 8)))
    assert isinstance(known, dict)
    return known | changes


def test_unknown_process_memory_survives_the_round_trip() -> None:
    machine = from_json(json.dumps(record()))
    assert machine.gpus[0].processes[0].used_bytes is None
    assert from_json(to_json(replace(machine, gpus=()))).gpus == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "truncated"),
        ("[]", "expected object, got array"),
        ("{}", "gpus is missing"),
        (json.dumps(record(gpus={})), "gpus: expected array, got object"),
        (json.dumps(record(gpus=[7])), "gpus[0]: expected object, got int"),
        (
            json.dumps(record(gpus=[record()["gpus"][0] | {"total_bytes": "12G"}])),
            "gpus[0].total_bytes: expected int, got str",
        ),
        (json.dumps(record(gpus=[record()["gpus"][0] | {"processes": [{}]}])), "gpus[0].processes[0].pid is"),
        (json.dumps(record(ram_total_bytes=-1)), "ram_total_bytes is negative"),
        (json.dumps(record(cpu_cores=True)), "cpu_cores: expected int, got bool"),
        (json.dumps(record(cpu=None)), "cpu: expected str, got null"),
    ],
)
def test_damage_is_named(text: str, named: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        from_json(text)
    assert named in caught.value.message
    assert "\n" not in caught.value.message


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text("{}")
    with pytest.raises(WrongUsage, match=r"/machine\.json does not describe a machine: gpus is missing"):
        load_machine(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "machine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongUsage, match=r"machine\.json cannot be read"):
        load_machine(path)

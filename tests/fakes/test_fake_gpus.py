"""The fake GPUs: their sizes, the driver that lags, and the check of every allocation. The stress depends on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.machine import read_machine
from tests.engines.running import running
from tests.fakes import vram
from tests.fakes.engine import install_fake_llama_server
from tests.fakes.nvml import FakeGpus, use_in_this_process

_SECONDS = 10  # nothing here should need as long


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus]:
    use_in_this_process()
    gpus = FakeGpus(tmp_path / "nvml", (24, 16))
    for name, value in gpus.environment.items():
        monkeypatch.setenv(name, value)
    yield gpus
    gpus.close()


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_machine_has_gpus_of_these_sizes(gpus: FakeGpus, program: subprocess.Popen[bytes]) -> None:
    vram.hold(program.pid, {gpus.devices[1]: 1024 * vram.MIB})
    first, second = read_machine().gpus
    assert (first.uuid, second.uuid) == gpus.uuids
    assert (first.total_bytes, second.total_bytes) == (24 * 1024**3, 16 * 1024**3)
    assert (first.free_bytes, second.free_bytes) == (24 * 1024**3, 15 * 1024**3)
    assert first.processes == ()
    assert [(one.pid, one.used_bytes) for one in second.processes] == [(program.pid, 1024 * vram.MIB)]


def test_no_driver_without_gpus() -> None:
    use_in_this_process()
    assert read_machine().driver == ""


def test_dead_process_keeps_its_memory_for_a_moment(gpus: FakeGpus, program: subprocess.Popen[bytes]) -> None:
    vram.hold(program.pid, dict.fromkeys(gpus.devices, 1024 * vram.MIB))
    time.sleep(0.02)  # the driver sees it
    program.kill()
    program.wait()
    died = time.monotonic()
    assert gpus.used_mib() == (1024, 1024)
    while any(gpus.used_mib()):
        assert time.monotonic() - died < _SECONDS
    assert time.monotonic() - died >= 0.002


def test_over_commit_is_returned(gpus: FakeGpus, program: subprocess.Popen[bytes]) -> None:
    first, second = gpus.devices
    assert vram.hold(program.pid, {first: 20000 * vram.MIB, second: 16000 * vram.MIB}) == ""
    assert vram.hold(1, {first: 4000 * vram.MIB}) == ""
    assert vram.hold(1, {first: 5000 * vram.MIB}).startswith(f"25000 of 24576 MiB of {gpus.uuids[0]}")
    assert vram.hold(1, {first: 4000 * vram.MIB}) == ""
    assert gpus.used_mib() == (24000, 16000)


def test_engine_takes_its_share_and_keeps_a_part_asleep(
    gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_SHARE", f"{gpus.devices[0]}=10240 {gpus.devices[1]}=2048")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus.uuids))
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    Path(f"{model}.fake.json").write_text('{"can_sleep": true, "keeps_mib": 900}')
    with running((str(install_fake_llama_server(tmp_path)),), model) as server:
        server.wait_ready()
        assert gpus.used_mib() == (10240, 2048)
        server.post("/sleep?level=1")
        assert gpus.used_mib() == (900, 900)
        vram.hold(1, {gpus.devices[0]: 20000 * vram.MIB})
        server.post("/wake_up")
    rows = [json.loads(line) for line in Path(f"{model}.events").read_text().splitlines()]
    (fault,) = (row for row in rows if "detail" in row)
    assert (fault["event"], fault["detail"][:17]) == ("over-commit", "30240 of 24576 Mi")


def test_engine_reports_a_gpu_that_it_cannot_see(
    gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_SHARE", f"{gpus.devices[1]}=2048")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus.uuids[0])
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    with running((str(install_fake_llama_server(tmp_path)),), model) as server:
        server.wait_ready()
    assert '"wrong-gpu"' in Path(f"{model}.events").read_text()

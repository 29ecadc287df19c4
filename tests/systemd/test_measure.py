"""Measurements of a start, from the running unit: its processes on the GPU, its log, and systemd's own record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.control.memory import starts_log
from mmd.control.memory.measure import measure_starts
from mmd.control.state.status import resident_bytes
from mmd.settings import read_settings
from tests.systemd.world import World, run_mmd, wait_for

MIB = 1024**2


@pytest.fixture
def gpu(world: World, nvml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state of a GPU, for this process and the engines."""
    world.add_gpu(nvml_folder)
    world.change_launch("a", share={"GPU-fake0000": 1024})
    monkeypatch.setenv("MMD_FAKE_NVML", str(world.folder / "nvml"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_folder))
    yield world.folder / "nvml"
    world.manager.systemctl("stop", "mmd-*")
    world.manager.systemctl("unset-environment", "MMD_FAKE_NVML", "LD_LIBRARY_PATH")


async def test_a_start_is_measured_once(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        (start,) = await measure_starts(mmd.manager, read_settings())
        assert (start.model, start.gpu) == ("a", "")
        assert 0 < start.measured["total_bytes"] <= 2 * resident_bytes(world.main_pid("a"))
        assert await measure_starts(mmd.manager, read_settings()) == ()
        await mmd.activate("b")
        assert [one.model for one in await measure_starts(mmd.manager, read_settings())] == ["b"]
        await mmd.stop("b")
        await mmd.activate("b")
        assert [one.model for one in await measure_starts(mmd.manager, read_settings())] == ["b"]
    assert [one.model for one in starts_log.read_starts()] == ["a", "b", "b"]


async def test_the_log_of_the_load_is_read(world: World) -> None:
    lines = [
        "srv    load_model: initializing, n_slots = 4, n_ctx_slot = 1024, kv_unified = 'true'",
        "load_tensors:   CPU_Mapped model buffer size =    10.00 MiB",
    ]
    world.add("a", stdout_lines=lines)
    async with world.controller() as mmd:
        await mmd.activate("a")
        (start,) = await measure_starts(mmd.manager, read_settings())
    assert start.context == 1024
    assert start.measured["weights_bytes"] == 10 * MIB
    assert start.errors["weights_bytes"] < 0


def test_on_a_gpu_it_is_what_the_driver_tells_of_its_processes(world: World, gpu: Path) -> None:
    world.add("a", weights_bytes=5000 * MIB)
    assert run_mmd("activate", "a").returncode == 0
    (start,) = json.loads(run_mmd("doctor", "--estimates", "--json").stdout)
    assert start["gpu"].startswith("GPU-00000000-0000-0000-0000-000000004070,")
    assert start["measured"]["total_bytes"] == 5000 * MIB
    assert 4900 * MIB < start["measured"]["context_bytes"] < 5000 * MIB
    record = json.loads(run_mmd("estimate", "a", "--json").stdout)
    assert (record["tier"], record["components"]["overhead_bytes"]) == ("measured", start["measured"]["context_bytes"])


async def test_one_that_sleeps_is_left_alone(world: World) -> None:
    world.add("a", can_sleep=True)
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.sleep("a")
        assert await measure_starts(mmd.manager, read_settings()) == ()


def test_estimate_and_doctor_measure_an_unmeasured_model(world: World) -> None:
    world.add("a", stdout_lines=["srv load_model: initializing, n_slots = 4, n_ctx_slot = 512, kv_unified = 'true'"])
    assert run_mmd("activate", "a").returncode == 0
    wait_for(lambda: starts_log.is_unmeasured("a"), what="its socket is there")
    record = json.loads(run_mmd("estimate", "a", "--json", "--context", "512").stdout)
    assert record["tier"] == "measured"
    (kept,) = json.loads(run_mmd("doctor", "--estimates", "--json").stdout)
    assert kept["model"] == "a"
    assert abs(record["needs_bytes"] - kept["measured"]["total_bytes"]) < MIB

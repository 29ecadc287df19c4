"""What people and programs are shown of several residents: on two GPUs, with a sleeper, and after bad luck."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from mmd.cli.status import device_lines, model_rows
from mmd.cli.via_gateway import RequestCounts
from mmd.control.doctor.checks import run_checks
from mmd.control.lifecycle.controller import Controller
from mmd.control.lifecycle.suspend import on_gpu
from mmd.control.state.status import Status
from mmd.control.state.swap_events import recent
from mmd.plan.residency import Residency
from tests.systemd.serving import running, serving
from tests.systemd.world import World, run_mmd, wait_for

MIB = 1024**2
GIB = 1024**3


def two_gpus(world: World) -> None:
    """24 and 16 GB, a chat model for each, an embedder, and a chat model of vLLM that sleeps."""
    world.add_gpus(24, 16)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized("large", 12)
    world.add_sized("small", 6)
    world.add_sized("embed", 1, embedding=True)
    world.add_sized_vllm("sleeper", 9)


def client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=30)


async def test_status_shows_who_lies_where(world: World) -> None:
    two_gpus(world)
    async with world.controller() as mmd:
        for name in ("large", "small", "embed"):
            await mmd.activate(name)
        status = await mmd.status()
    residents = {one.id: one for one in status.resident}
    assert residents.keys() == {"large", "small", "embed"}
    assert (residents["embed"].type, residents["embed"].engine) == ("embedding", "llama-server")
    gpus = {one.id: one for one in status.devices if one.index is not None}
    for one in status.resident:
        assert one.devices.keys() <= gpus.keys(), one
        assert one.devices.keys() == one.used.keys(), "the driver reports every process"
        assert all(0 < one.used[device] <= held for device, held in one.devices.items()), one
        assert one.since is not None
    for device in gpus.values():
        held = sum(one.devices.get(device.id, 0) for one in status.resident)
        assert device.held_bytes == held <= device.capacity_bytes <= device.total_bytes
        assert device.mmd_bytes + device.others_bytes + device.free_bytes == device.total_bytes
    shown = await asyncio.to_thread(run_mmd, "status")
    for one in status.resident:
        assert one.id in shown.stdout
    assert "GPU 0" in shown.stdout and "GPU 1" in shown.stdout
    rows = {
        row["id"]: row["devices"] for row in json.loads((await asyncio.to_thread(run_mmd, "list", "--json")).stdout)
    }
    assert rows == {**{one.id: dict(one.devices) for one in status.resident}, "sleeper": {}}


async def test_generating_model_asked_for_last_is_active(world: World) -> None:
    """By a request, too, and for all: the gateway, its successor, and the command line."""
    two_gpus(world)
    async with (
        serving(world) as at,
        running(at.watch.run()),
        httpx.AsyncClient(base_url=at.address, timeout=30) as http,
    ):
        for name in ("large", "small"):
            assert (await http.post("/models/activate", json={"model": name})).json()["success"] is True
        assert (await http.get("/status")).json()["active"] == "small"
        await http.post("/v1/completions", json={"model": "large", "prompt": "hi"})
        await http.post("/v1/embeddings", json={"model": "embed", "input": "hi"})
        now = (await http.get("/status")).json()
        assert (now["active"], len(now["resident"])) == ("large", 3)
        answer = await http.post("/v1/completions", json={"prompt": "hi"})
        assert "large" in answer.text
        assert json.loads((await asyncio.to_thread(run_mmd, "status", "--json")).stdout)["active"] == "large"
    async with serving(world) as at, client(at.address) as http:
        assert (await http.get("/status")).json()["active"] == "large"


async def test_model_that_left_is_shown_with_the_reason(world: World) -> None:
    two_gpus(world)
    world.add_sized("huge", 20)  # fits on the first GPU only, and there alone
    async with world.controller() as mmd:
        await mmd.activate("large")
        await mmd.activate("huge")
        status = await mmd.status()
    assert (status.resident_ids, [one.id for one in status.unloaded]) == (("huge",), ["large"])
    assert (status.unloaded[0].unloaded_for, bool(status.unloaded[0].why)) == ("huge", True)
    assert recent(1)[0].evicted == ("large",)
    shown = await asyncio.to_thread(run_mmd, "status")
    assert status.unloaded[0].why in shown.stdout
    assert "large unloaded" in (await asyncio.to_thread(run_mmd, "events")).stdout


async def test_sleeper_is_shown_with_what_it_keeps(world: World) -> None:
    two_gpus(world)
    async with world.controller() as mmd:
        await mmd.activate("sleeper")
        await mmd.sleep("sleeper")
        status = await mmd.status()
    (asleep,) = status.sleeping
    (device,) = asleep.devices
    assert asleep.id == "sleeper"
    assert 0 < asleep.devices[device] < 2 * GIB
    (use,) = (one for one in status.devices if one.id == device)
    assert use.held_bytes == asleep.devices[device]
    assert any("sleeper, asleep" in line for line in device_lines(use, status))


async def test_stranded_engine_is_shown_and_ended(world: World) -> None:
    """`mmd status` called an engine asleep whose release hook had been killed, while it was awake beside another."""
    two_gpus(world)
    async with world.controller() as mmd:
        await _strand_sleeper(world, mmd)
        status = await mmd.status()
        assert [one.id for one in status.stranded] == ["sleeper"]
        assert (status.resident_ids, status.sleeping) == ((), ())
        _assert_shown_as_stranded(status)
        found = [one for one in await asyncio.to_thread(run_checks, offline=True) if one.check == "residents"]
        assert [(one.state, one.hint) for one in found] == [
            ("warning", "mmd stop sleeper   # the next swap ends it, too")
        ]
        await mmd.activate("large")
        after = await mmd.status()
        assert (after.resident_ids, after.stranded) == (("large",), ())
        assert (await mmd.residencies()).get("sleeper", Residency.ABSENT) is Residency.ABSENT


async def test_stranded_engine_leaves_the_gpu_before_a_suspend(world: World) -> None:
    """It has no token that could be stopped, so it stayed on the GPU, and a suspend breaks its memory."""
    two_gpus(world)
    async with world.controller() as mmd:
        await _strand_sleeper(world, mmd)
        assert await on_gpu(mmd.manager) == ("sleeper",)
        await mmd.suspend()
        assert await on_gpu(mmd.manager) == ()


async def _strand_sleeper(world: World, mmd: Controller) -> None:
    """Kill the release hook of a model that falls asleep: its engine is awake without a token."""
    await mmd.activate("sleeper")
    world.behave("sleeper", sleep_seconds=5.0)
    sleeping = asyncio.create_task(mmd.sleep("sleeper"))
    await asyncio.to_thread(wait_for, lambda: bool(_hooks("release")), what="the release hook")
    for pid in _hooks("release"):
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(sleeping, return_exceptions=True)


def _assert_shown_as_stranded(status: Status) -> None:
    (row,) = model_rows(status, RequestCounts())
    assert row[:2] == ("sleeper", "stranded")
    (device,) = status.stranded[0].devices
    (use,) = (one for one in status.devices if one.id == device)
    assert any("sleeper, stranded" in line for line in device_lines(use, status))


def _hooks(name: str) -> list[int]:
    """Return the processes of a hook under this test's user manager."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if f"/hooks/{name}.py".encode() in command and os.environ["XDG_RUNTIME_DIR"].encode() in command:
            found.append(int(path.name))
    return found


@pytest.mark.parametrize(("size_gib", "became"), [(5, "level 2"), (9, "stopped")])
async def test_sleeper_goes_deeper_if_it_may_wake_where_it_lies(world: World, size_gib: int, became: str) -> None:
    """It needs room beside the resident model on its own device, not a GPU for itself."""
    two_gpus(world)
    world.add_sized_vllm("deep", size_gib)
    async with world.controller() as mmd:
        await mmd.activate("deep")
        await mmd.sleep("deep", 1)
        await mmd.activate("embed")
        status = await mmd.status()
        assert status.sleeping[0].devices.keys() == status.resident[0].devices.keys()
        assert await mmd.demote("deep") == became
        status = await mmd.status()
    assert status.resident_ids == ("embed",)
    assert [(one.id, one.level) for one in status.sleeping] == ([("deep", 2)] if became == "level 2" else [])

"""Sleep on a real user manager: its levels, its failures, and that no model loads beside one that does not sleep."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.errors import SwapSuperseded, WrongUsage
from mmd.paths import engine_socket, runtime_dir
from mmd.plan.residency import Residency
from tests.systemd.world import SLEEP, World, wait_for

GIB = 1024**3
DEEP = replace(SLEEP, levels=(2,))
BOTH = replace(SLEEP, levels=(1, 2))


@pytest.fixture
def gpu(world: World) -> World:
    """The world, with a GPU that a and b use."""
    world.add_gpus(24)
    return world


def phases(name: str, hook: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((runtime_dir() / f"{name}~{hook}").read_text())
    return record


def say(name: str) -> str:
    """Return the first words of a model's response."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine_socket(name))), timeout=20) as client:
        return str(client.post("http://engine/v1/completions", json={}).json()["choices"][0]["text"])


# --- levels


@pytest.mark.parametrize(("sleep", "level"), [(SLEEP, 1), (DEEP, 2)], ids=["level_1", "level_2"])
async def test_a_model_sleeps_and_comes_back_as_itself(world: World, sleep: Any, level: int) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    world.change_launch("a", sleep=sleep)
    async with world.controller() as mmd:
        await mmd.activate("a")
        before = say("a")
        await mmd.activate("b")
        (asleep,) = (await mmd.status()).sleeping
        assert (asleep.id, asleep.level) == ("a", level)
        assert (phases("a", "release")["level"], phases("a", "release")["outcome"]) == (level, "slept")
        await mmd.activate("a")
        assert say("a") == before
        assert (phases("a", "wake")["level"], phases("a", "wake")["outcome"]) == (level, "woke")
    assert world.events("load-begin") == [("load-begin", "a"), ("load-begin", "b")]
    assert ("reload" in [word for word, _ in world.events()]) == (level == 2)
    assert not world.events("overlap")


@pytest.mark.parametrize(("levels", "level"), [((1,), None), ((1, 2), 2)], ids=["or_is_stopped", "or_deeper"])
async def test_a_model_sleeps_as_lightly_as_ram_allows(
    world: World, levels: tuple[int, ...], level: int | None
) -> None:
    world.add("a", can_sleep=True)
    world.change_launch("a", sleep=replace(SLEEP, levels=levels, reserve_bytes=10**18))
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.sleep("a")
        assert [one.level for one in (await mmd.status()).sleeping] == ([level] if level else [])


async def test_sleep_at_a_level_by_hand(world: World) -> None:
    world.add("a", can_sleep=True)
    world.change_launch("a", sleep=BOTH)
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert await mmd.sleep("a", 2) == ("a",)
        assert [one.level for one in (await mmd.status()).sleeping] == [2]
        assert await mmd.sleep("a", 2) == ()
        with pytest.raises(WrongUsage, match="has no weights in RAM that level 1 could keep"):
            await mmd.sleep("a", 1)
        await mmd.activate("a")
        await mmd.sleep("a")
        assert [one.level for one in (await mmd.status()).sleeping] == [1], "by hand is for once"
        assert await mmd.sleep("a", 2) == ("a",)
        assert [one.level for one in (await mmd.status()).sleeping] == [2]


async def test_sleep_at_a_level_that_there_is_not(world: World) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(WrongUsage, match="cannot sleep at level 2: only at 1"):
            await mmd.sleep("a", 2)
        with pytest.raises(WrongUsage, match="cannot sleep at level 1: its engine cannot sleep"):
            await mmd.sleep("b", 1)
        assert (await mmd.status()).active == "a"


async def test_demote_takes_a_sleeper_deeper(world: World) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    world.change_launch("a", sleep=BOTH)
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert await mmd.demote("a") is None, "it does not sleep"
        await mmd.activate("b")
        await mmd.sleep("b")
        assert await mmd.demote("a") == "level 2"
        assert [one.level for one in (await mmd.status()).sleeping] == [2]
        assert await mmd.demote("a") == "stopped"
        assert await mmd.residencies() == {}
        assert await mmd.demote("a") is None


async def test_demote_stops_a_sleeper_while_another_has_the_gpu(world: World) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    world.change_launch("a", sleep=BOTH)
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        assert await mmd.demote("a") == "stopped"
        status = await mmd.status()
        assert (status.active, status.sleeping) == ("b", ())


async def test_demote_stops_a_sleeper_that_does_not_wake(world: World) -> None:
    world.add("a", can_sleep=True, wake_lies=True)
    world.change_launch("a", sleep=BOTH)
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.sleep("a")
        assert await mmd.demote("a") == "stopped"
        assert (await mmd.status()).sleeping == ()
        await mmd.activate("a")
        assert (await mmd.status()).active == "a"
    assert not world.events("overlap")


# --- engines that do not fall asleep


@pytest.mark.parametrize(
    "behaviour",
    [{"sleep_status": 500}, {"hang_in_sleep": True}, {"die_in_sleep": True}],
    ids=["answers_500", "hangs", "dies"],
)
async def test_engine_that_does_not_sleep_is_stopped_before_next_load(world: World, behaviour: dict[str, Any]) -> None:
    world.add("a", can_sleep=True, **behaviour)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        status = await mmd.status()
        assert (status.resident_ids, status.sleeping) == (("b",), ())
        assert phases("a", "release")["outcome"] == "stopped"
        await mmd.activate("a")
        assert (await mmd.status()).active == "a"
    assert not world.events("overlap")


async def test_engine_that_sleeps_and_frees_nothing_is_ended(gpu: World) -> None:
    sleep = replace(SLEEP, weights_bytes=4 * GIB, levels=(2,))
    gpu.change_launch("a", "b", sleep=sleep)
    gpu.add("a", can_sleep=True, weights_bytes=4 * GIB, sleep_frees_nothing=True)
    gpu.add("b", can_sleep=True, weights_bytes=4 * GIB)
    async with gpu.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        assert [one.id for one in (await mmd.status()).sleeping] == []
        assert phases("a", "release")["freed_bytes"] == 0
        await mmd.activate("a")
        assert [one.id for one in (await mmd.status()).sleeping] == ["b"]
        assert phases("b", "release")["freed_bytes"] == 4 * GIB
    assert not gpu.events("overlap")


async def test_engine_killed_in_the_middle_of_falling_asleep(world: World) -> None:
    world.add("a", can_sleep=True, sleep_seconds=30)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        swap = asyncio.create_task(mmd.activate("b"))
        await asyncio.to_thread(wait_for, lambda: _record(world, "a").exists(), what="the sleep")
        world.kill("a", signal.SIGKILL)
        await swap
        assert (await mmd.status()).resident_ids == ("b",)
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
    assert not world.events("overlap")


async def test_sleeper_killed_awake_is_restarted(world: World) -> None:
    world.add("a", can_sleep=True)
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.kill("a", signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: world.events("ready") == [("ready", "a")] * 2, what="a second start")
        await mmd.activate("a")  # joins the restart, or finds it done
        assert (await mmd.status()).active == "a"
    assert not world.events("overlap")


async def test_engine_killed_awake_whose_worker_outlives_it(world: World) -> None:
    """systemd kills the worker with the control group, before it starts anything else there."""
    world.add("a", "b", spawn_worker=True)
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.kill("a", signal.SIGKILL)
        await mmd.activate("b")
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
    assert not world.events("overlap")


async def test_sleeper_whose_worker_outlives_it(world: World) -> None:
    world.add("a", can_sleep=True, spawn_worker=True, die_in_sleep=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("b",)
    assert not world.events("overlap")


async def test_engine_that_cannot_sleep_is_waited_for_on_a_gpu(gpu: World) -> None:
    gpu.add("a", "b", weights_bytes=GIB)
    async with gpu.controller() as mmd:
        await mmd.activate("a")
        began = time.monotonic()
        await mmd.activate("b")
        release = phases("a", "release")
        assert began < release["began"] < time.monotonic()
        assert release["outcome"] == "stopped"
    assert not gpu.events("overlap")


# --- engines that do not wake


async def test_engine_that_lies_about_waking_is_started_cold(world: World) -> None:
    world.add("a", can_sleep=True, wake_lies=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
        assert phases("a", "wake")["outcome"] == "cold"
    assert world.events("load-begin") == [("load-begin", "a"), ("load-begin", "b"), ("load-begin", "a")]
    assert not world.events("overlap")


async def test_engine_that_wakes_with_garbage_is_started_cold(world: World) -> None:
    """As if its weights were not read again; vLLM answers 200 to every request."""
    world.add("a", can_sleep=True)
    world.add("b")
    world.change_launch("a", sleep=DEEP)
    async with world.controller() as mmd:
        await mmd.activate("a")
        before = say("a")
        await mmd.activate("b")
        _record(world, "a").write_text('{"level": 1, "since": 0, "freed_bytes": null}\n')
        await mmd.activate("a")
        assert say("a") == before
    assert world.events("load-begin")[2:] == [("load-begin", "a")]
    assert not world.events("overlap")


async def test_wake_that_is_interrupted_leaves_no_engine_half_awake(world: World) -> None:
    """systemd does not run ExecStop= for a token that was not up yet: two models were awake."""
    world.add("a", can_sleep=True, wake_seconds=0.5)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        first = asyncio.create_task(mmd.activate("a"))
        await asyncio.to_thread(wait_for, lambda: ("exit", "b") in world.events(), what="a's wake")
        await asyncio.gather(mmd.activate("b"), first, return_exceptions=True)
        assert (await mmd.status()).resident_ids == ("b",)
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
    assert not world.events("overlap")


async def test_swap_away_from_a_long_wake_waits_for_its_end(world: World) -> None:
    """vLLM's core does one thing at a time: a sleep in the middle of a wake waits for it."""
    world.add("a", "b", can_sleep=True)
    async with world.controller() as mmd:
        await mmd.activate("b")
        world.behave("a", wake_seconds=1)
        await mmd.activate("a")
        await mmd.activate("b")
        first = asyncio.create_task(mmd.activate("a"))
        await asyncio.to_thread(wait_for, lambda: ("wake-begin", "a") in world.events(), what="a's wake")
        await asyncio.gather(mmd.activate("b"), first, return_exceptions=True)
        assert world.events("sleep", "wake")[-3:] == [("wake", "a"), ("sleep", "a"), ("wake", "b")]
    assert not world.events("overlap")


async def test_restarted_sleeper_is_placed_without_itself(gpu: World) -> None:
    """Its settings have changed. It got the share of the GPU that it and the other model left free."""
    gpu.add("a", can_sleep=True)
    gpu.add("b")
    async with gpu.controller() as mmd:
        first = (await mmd.activate("a")).launches["a"]
        await mmd.activate("b")
        gpu.change_launch("a", environment=(("OTHER", "1"),))
        assert (await mmd.activate("a")).launches["a"].share == first.share
    assert not gpu.events("overlap")


# --- stop during a load


async def test_sleeper_whose_load_is_interrupted_has_not_failed(world: World) -> None:
    """Its release ends the engine before systemd does, which looks like a crash."""
    world.add("a", can_sleep=True, load_seconds=300)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("b")
        for interrupt in (mmd.sleep("a"), mmd.activate("b")):
            loads = len(world.events("load-begin"))
            start = asyncio.create_task(mmd.activate("a"))
            loading = partial(world.has_more, "load-begin", than=loads)
            await asyncio.to_thread(wait_for, loading, what="the load")
            await interrupt
            with pytest.raises(SwapSuperseded):
                await start
    assert not world.events("overlap")


async def test_stop_during_load_does_not_wait_for_a_lost_sigterm(world: World) -> None:
    """vLLM loses a SIGTERM during its load, and was waited for until systemd killed it."""
    world.add("a", load_seconds=300, lose_sigterm_while_loading=True)
    world.change_launch("a", stop_seconds=300)
    async with world.controller() as mmd:
        start = asyncio.create_task(mmd.activate("a"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "a") in world.events(), what="the load")
        await mmd.stop("a")
        await asyncio.gather(start, return_exceptions=True)
        assert await mmd.residencies() == {}


async def test_swap_during_load_does_not_wait_for_a_lost_sigterm(world: World) -> None:
    world.add("a", load_seconds=300, lose_sigterm_while_loading=True)
    world.add("b")
    world.change_launch("a", stop_seconds=300)
    async with world.controller() as mmd:
        start = asyncio.create_task(mmd.activate("a"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "a") in world.events(), what="the load")
        await mmd.activate("b")
        await asyncio.gather(start, return_exceptions=True)
        assert await mmd.residencies() == {"a": Residency.ABSENT, "b": Residency.RESIDENT}
    assert not world.events("overlap")


def _record(world: World, name: str) -> Path:
    return world.manager.runtime / "mmd" / name / "asleep"

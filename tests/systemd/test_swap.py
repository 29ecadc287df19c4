"""Activation on a real user manager: which models are resident when, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from mmd.errors import MmdError, NoSuchModel, SwapSuperseded
from mmd.plan.residency import Residency
from tests.systemd.world import World, run_mmd, wait_for


async def test_activate_starts_the_engine_and_returns_when_it_answers(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        done = await mmd.activate("a")
        assert (done.model_id, done.evicted) == ("a", ())
        assert await mmd.residencies() == {"a": Residency.RESIDENT}
        assert (await mmd.status()).active == "a"
    assert world.events() == [("start", "a"), ("load-begin", "a"), ("ready", "a")]


async def test_activate_another_lets_the_first_go_before_it_loads(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert (await mmd.activate("b")).evicted == ("a",)
        assert (await mmd.status()).resident_ids == ("b",)
    assert world.events("exit", "load-begin") == [("load-begin", "a"), ("exit", "a"), ("load-begin", "b")]


async def test_activate_the_resident_touches_nothing(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        await mmd.activate("a")
        pid = world.main_pid("a")
        assert (await mmd.activate("a")).why == "it is resident"
    assert world.main_pid("a") == pid


async def test_activate_back_and_forth_reuses_the_units(world: World) -> None:
    """A dead token stays loaded while a live one names it, and StartTransientUnit then refuses the name."""
    world.add("a", "b", "c")
    async with world.controller() as mmd:
        for name in "abcabcacb":
            await mmd.activate(name)
            assert (await mmd.status()).resident_ids == (name,)
    assert not world.events("overlap")


async def test_activate_after_a_changed_launch_makes_new_units(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
    world.settings("[models.a]\ncontext = 512\n[models.b]\ncontext = 512\n")
    async with world.controller() as mmd:
        await mmd.activate("a")  # dead but loaded, from another launch
        await mmd.activate("b")
        assert "512" in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@b.service")
    world.settings("[models.b]\ncontext = 1024\n")
    async with world.controller() as mmd:
        done = await mmd.activate("b")  # resident, from another launch
        assert done.why == "resident with another command line"
        assert "1024" in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@b.service")
    assert not world.events("overlap")


async def test_activate_twice_at_once_shares_one_start(world: World) -> None:
    world.add("a", load_seconds=0.3)
    async with world.controller() as mmd:
        await asyncio.gather(mmd.activate("a"), mmd.activate("a"))
    assert world.events("start") == [("start", "a")]


async def test_activate_three_at_once_the_last_one_wins(world: World) -> None:
    world.add("a", "b", "c", load_seconds=0.2)
    async with world.controller() as mmd:
        ends = await asyncio.gather(*(mmd.activate(name) for name in "abc"), return_exceptions=True)
        resident = (await mmd.status()).resident_ids
        assert len(resident) == 1
        for name, end in zip("abc", ends, strict=True):
            assert isinstance(end, SwapSuperseded) == (name != resident[0]), end
    assert not world.events("overlap")


@pytest.mark.parametrize("can_sleep", [False, True], ids=["stops", "sleeps"])
async def test_activate_away_from_a_model_that_still_loads(world: World, can_sleep: bool) -> None:
    """Its socket refuses, which a naive release takes for "not running": two models loaded side by side. And if a
    release stopped it, the message was that it had failed.
    """
    world.add("slow", load_seconds=30, can_sleep=can_sleep)
    world.add("b")
    async with world.controller() as mmd:
        first = asyncio.create_task(mmd.activate("slow"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "slow") in world.events(), what="the load")
        await mmd.activate("b")
        with pytest.raises(SwapSuperseded, match="b was activated"):
            await first
        where = await mmd.residencies()
        assert where["slow"] is Residency.ABSENT
        assert where["b"] is Residency.RESIDENT
    assert not world.events("overlap")


async def test_sleep_and_stop_give_the_gpu_back(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        assert await mmd.sleep() == ()
        await mmd.activate("a")
        assert await mmd.sleep() == ("a",)  # llama-server cannot sleep: it is stopped
        assert (await mmd.status()).resident_ids == ()
        await mmd.activate("b")
        assert await mmd.stop("b") == ("b",)
        assert await mmd.stop() == ()
        assert await mmd.residencies() == {}
    assert not [folder for folder in (world.manager.runtime / "mmd").iterdir() if folder.is_dir()]


async def test_a_sleeper_is_woken_not_started(world: World) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        status = await mmd.status()
        assert ([one.id for one in status.sleeping], status.active) == (["a"], "b")
        assert (await mmd.activate("a")).why == "asleep in RAM"
        assert (await mmd.status()).active == "a"
    log = world.events("load-begin", "sleep", "wake", "exit")
    assert log == [("load-begin", "a"), ("sleep", "a"), ("load-begin", "b"), ("exit", "b"), ("wake", "a")]


async def test_remove_ends_the_engine_and_keeps_the_file(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        await mmd.activate("a")
        removed = await mmd.remove("a")
        assert await mmd.residencies() == {}
        with pytest.raises(NoSuchModel):
            await mmd.activate("a")
    assert (world.folder / "a.gguf").exists()
    assert removed.id == "a"


async def test_errors_are_all_ours(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        for ask in (mmd.activate, mmd.sleep, mmd.stop, mmd.remove):
            with pytest.raises(MmdError, match="nope"):
                await ask("nope")


def test_status_of_nothing_says_what_to_do_next(world: World) -> None:
    """The hint was `mmd activate ID` even without any model."""
    said = run_mmd("status").stderr
    assert "mmd add PATH" in said and "mmd search" in said and "activate" not in said
    world.add("a")
    assert "mmd activate ID" in run_mmd("status").stderr


async def test_stop_of_models_whose_units_were_replaced_in_turn(world: World) -> None:
    """Each token names the other in After=: systemd said "Transaction order is cyclic", and one model stayed."""
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        world.settings("[models.a]\ncontext = 1024\n[models.b]\ncontext = 1024\n")
        await mmd.activate("b")
        await mmd.activate("a")
        assert await mmd.stop() == ("a",)
        assert set((await mmd.residencies()).values()) <= {Residency.ABSENT}

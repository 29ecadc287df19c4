"""Setups on a real user manager: several models in one transaction, on fake GPUs whose memory is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from mmd.control.lifecycle.boot import BootReport, boot
from mmd.control.lifecycle.setup_plan import activate_setup, plan_setup
from mmd.control.models.setups import Setup, define, require_setup
from mmd.control.models.startup import set_default, set_restore_last
from mmd.control.state.last_resident import record_now
from mmd.errors import DoesNotFit, EngineFailed, MemoryTaken
from mmd.gateway.gateway import Gateway
from mmd.paths import state_dir
from mmd.units.watch import Pairs, read_pairs
from tests.systemd.serving import running, serving
from tests.systemd.world import World, run_mmd, wait_for

RAG = ("chat", "embed", "rerank")
GIB = 1024**3


@pytest.fixture
def home(world: World) -> World:
    """A GPU of 24 GB: a chat model has room beside two light ones, a second chat model has not."""
    world.add_gpus(24)
    world.settings("", residency="many")
    world.add_sized("chat", 14)
    world.add_sized("other", 14)
    world.add_sized("embed", 1, embedding=True)
    world.add_sized("rerank", 1, embedding=True)
    define("rag", RAG, None)
    return world


async def resident(world: World) -> set[str]:
    async with world.controller() as mmd:
        return set((await mmd.status()).resident_ids)


def held_gib(pairs: Pairs, model_id: str) -> float:
    holding = pairs[model_id].holding
    assert holding is not None
    return sum(holding.uses.values()) / 1024


async def test_setup_comes_up_together(home: World) -> None:
    async with home.controller() as mmd:
        done = await activate_setup(mmd, require_setup("rag"))
        assert (done.model_ids, done.evicted) == (RAG, ())
        status = await mmd.status()
        assert (set(status.resident_ids), status.active) == (set(RAG), "chat")
        again = await activate_setup(mmd, require_setup("rag"))
        assert again.was_resident
    assert sorted(home.events("ready")) == [("ready", name) for name in sorted(RAG)]


async def test_setup_that_may_not_unload_names_its_own_command(home: World) -> None:
    async with home.controller() as mmd:
        await mmd.activate("other")
        with pytest.raises(MemoryTaken) as refused:
            await activate_setup(mmd, require_setup("rag"), evicts=False)
        assert refused.value.hint.startswith("mmd activate rag ")
    assert await resident(home) == {"other"}


async def test_engines_on_one_gpu_load_one_after_another(home: World) -> None:
    """An engine measures the GPU when it loads: the loads of two must not overlap."""
    for name in RAG:
        home.behave(name, load_seconds=0.3)
    async with home.controller() as mmd:
        await activate_setup(mmd, require_setup("rag"))
    kinds = [kind for kind, _ in home.events("load-begin", "ready")]
    assert kinds == ["load-begin", "ready"] * 3


async def test_member_that_is_resident_stays(home: World) -> None:
    async with home.controller() as mmd:
        await mmd.activate("embed")
        done = await activate_setup(mmd, require_setup("rag"))
        assert done.evicted == ()
    assert home.events("load-begin")[0] == ("load-begin", "embed")
    assert sorted(home.events("load-begin")) == [("load-begin", name) for name in sorted(RAG)]


async def test_member_that_has_grown_starts_again_with_its_part(home: World) -> None:
    """Alone a chat model takes what its GPU has left: the others of its setup found no room."""
    home.add_sized("small", 7, context=131072)
    home.add_sized("coder", 7, context=131072)
    pair = Setup("pair", ("small", "coder"))
    async with home.controller() as mmd:
        await mmd.activate("small")
        alone = held_gib(await read_pairs(mmd.manager), "small")
        assert await mmd.would_unload(pair.models) == ("small",)
        done = await activate_setup(mmd, pair)
        assert done.evicted == ()
        together = held_gib(await read_pairs(mmd.manager), "small")
    assert together < alone
    assert await resident(home) == {"small", "coder"}


async def test_member_started_again_is_restored_if_the_set_fails(home: World) -> None:
    home.add_sized("small", 7, context=131072)
    home.add_sized("coder", 7, context=131072, exit_at_once={"status": 1, "stderr": "error: no"})
    async with home.controller() as mmd:
        await mmd.activate("small")
        with pytest.raises(EngineFailed, match=r"coder did not start: .*; small is resident again"):
            await activate_setup(mmd, Setup("pair", ("small", "coder")))
    assert await resident(home) == {"small"}


async def test_model_in_the_way_leaves_and_light_ones_stay(home: World) -> None:
    async with home.controller() as mmd:
        await mmd.activate("other")
        done = await activate_setup(mmd, require_setup("rag"))
        assert done.evicted == ("other",)
    assert await resident(home) == set(RAG)


async def test_set_fails_as_a_whole_and_what_was_there_comes_back(home: World) -> None:
    home.behave("rerank", exit_at_once={"status": 1, "stderr": "error: no such layer"})
    async with home.controller() as mmd:
        await mmd.activate("other")
        with pytest.raises(EngineFailed, match=r"rerank did not start: .*no such layer.*other is resident again"):
            await activate_setup(mmd, require_setup("rag"))
        pairs = await read_pairs(mmd.manager)
        assert [name for name, pair in pairs.items() if pair.holds_gpu] == ["other"]
    assert await resident(home) == {"other"}


async def test_member_that_was_resident_stays_when_the_set_fails(home: World) -> None:
    home.behave("rerank", exit_at_once={"status": 1, "stderr": "error: no"})
    async with home.controller() as mmd:
        await mmd.activate("embed")
        with pytest.raises(EngineFailed, match="rerank did not start"):
            await activate_setup(mmd, require_setup("rag"))
    assert await resident(home) == {"embed"}


async def test_setup_that_cannot_fit_is_refused_with_its_sum(home: World) -> None:
    both = Setup("both", ("chat", "other", "embed"))
    async with home.controller() as mmd:
        await mmd.activate("other")
        with pytest.raises(DoesNotFit, match="the setup both does not fit: chat and embed and other need") as refusal:
            await activate_setup(mmd, both)
        for part in (" for chat", " for embed", " for other"):
            assert part in refusal.value.message
        assert refusal.value.hint == "mmd setup add both chat embed   # fits, without other"
        plan = await plan_setup(mmd.planner, both, {})
        assert plan.problem and plan.hint == refusal.value.hint
    assert await resident(home) == {"other"}, "nothing was unloaded"


async def test_plan_says_where_each_would_lie_and_what_it_gets(home: World) -> None:
    async with home.controller() as mmd:
        plan = await plan_setup(mmd.planner, require_setup("rag"), {})
        assert not plan.problem
        chat, *light = plan.members
        (share,) = chat.devices.values()
        assert 15 * GIB < share < 22 * GIB
        assert all(1 * GIB < sum(one.devices.values()) < 4 * GIB for one in light)
        await activate_setup(mmd, require_setup("rag"))
        pairs = await read_pairs(mmd.manager)
        held = {name: pair.holding.uses for name, pair in pairs.items() if pair.holding}
        planned = {one.id: {device: size // 2**20 for device, size in one.devices.items()} for one in plan.members}
        assert held == planned


async def test_chats_of_a_setup_lie_on_two_cards(world: World) -> None:
    gpus = world.add_gpus(24, 16)
    world.settings("", residency="many")
    world.add_sized("chat", 18)
    world.add_sized("other", 12)
    world.add_sized("embed", 1, embedding=True)
    async with world.controller() as mmd:
        await mmd.activate("other")
        await activate_setup(mmd, Setup("all", ("chat", "other", "embed")))
        pairs = await read_pairs(mmd.manager)
    where = {name: list(pair.holding.uses) for name, pair in pairs.items() if pair.holding}
    assert (where["chat"], where["other"]) == ([gpus.devices[0]], [gpus.devices[1]])
    assert await resident(world) == {"chat", "other", "embed"}


async def test_members_that_can_sleep_sleep_and_wake_together(world: World) -> None:
    world.add_gpus(24)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized_vllm("chat", 8)
    world.add_sized("embed", 1, embedding=True)
    define("rag", ("chat", "embed"), None)
    assert (await asyncio.to_thread(run_mmd, "activate", "rag")).returncode == 0
    slept = await asyncio.to_thread(run_mmd, "sleep", "rag")
    assert slept.stderr.splitlines() == ["chat sleeps at level 1", "embed stopped"], slept.stderr
    assert (await asyncio.to_thread(run_mmd, "activate", "rag")).returncode == 0
    assert await resident(world) == {"chat", "embed"}
    assert [model_id for _, model_id in world.events("wake")] == ["chat"]


# --- commands


async def test_commands_act_on_the_models_of_a_setup(home: World) -> None:
    done = await asyncio.to_thread(run_mmd, "activate", "rag")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "rag loaded in" in done.stderr
    assert "rag is already loaded" in (await asyncio.to_thread(run_mmd, "activate", "rag")).stderr
    slept = await asyncio.to_thread(run_mmd, "sleep", "rag")
    assert sorted(slept.stderr.splitlines()) == ["chat stopped", "embed stopped", "rerank stopped"]
    assert await resident(home) == set()
    assert "rag is not loaded" in (await asyncio.to_thread(run_mmd, "sleep", "rag")).stderr
    assert (await asyncio.to_thread(run_mmd, "activate", "rag")).returncode == 0
    stopped = await asyncio.to_thread(run_mmd, "stop", "rag")
    assert sorted(stopped.stderr.splitlines()) == ["chat stopped", "embed stopped", "rerank stopped"]


# --- the gateway


@asynccontextmanager
async def gateway(world: World) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    async with (
        serving(world) as served,
        running(served.watch.run()),
        httpx.AsyncClient(base_url=served.address, timeout=60) as client,
    ):
        yield served.gateway, client


async def test_gateway_lets_the_answers_of_leavers_finish(home: World) -> None:
    home.behave("other", chunk_seconds=0.5)
    async with gateway(home) as (served, client):
        question = {"model": "other", "messages": []}
        assert (await client.post("/v1/chat/completions", json=question)).status_code == 200
        answering = asyncio.create_task(client.post("/v1/chat/completions", json=question))
        await asyncio.to_thread(wait_for, lambda: served.requests_at_engines > 0, what="a request at its engine")
        done = await client.post("/models/activate", json={"model": "rag"})
        assert answering.done()
        assert (await answering).json()["model"] == "other"
        assert (done.status_code, done.json()["success"]) == (200, True), done.text
        assert {one["id"] for one in done.json()["resident"]} == set(RAG)
        listed = {one["id"]: one["status"] for one in (await client.get("/models")).json()}
        assert listed["rag"] == "resident"
        asked = await client.post("/v1/chat/completions", json={"model": "rag", "messages": []})
        assert asked.json()["model"] == "chat"
        slept = (await client.post("/models/sleep", json={"model": "rag"})).json()
        assert (sorted(slept["gone"]), slept["resident"]) == (sorted(RAG), [])


async def test_gateway_refuses_a_setup_that_does_not_fit(home: World) -> None:
    define("both", ("chat", "other"), None)
    async with gateway(home) as (_, client):
        await client.post("/models/activate", json={"model": "embed"})
        refused = await client.post("/models/activate", json={"model": "both"})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (507, "does_not_fit")
        assert "for chat" in error["message"] and "for other" in error["message"]
        assert error["hint"].startswith("mmd setup add both chat ")
        assert [one["id"] for one in (await client.get("/status")).json()["resident"]] == ["embed"]


# --- the boot


async def restarted(world: World) -> None:
    """Stop all models, and date the record back: a user manager of a new boot has another start."""
    async with world.controller() as mmd:
        await mmd.stop()
    file = state_dir() / "resident.json"
    file.write_text(file.read_text().replace('"session":"', '"session":"0'))


async def booted(world: World) -> BootReport:
    async with world.controller() as controller:
        return await boot(controller)


async def test_setup_is_the_default_of_a_boot(home: World) -> None:
    set_default("rag")
    assert await booted(home) == BootReport(active=RAG)
    assert await resident(home) == set(RAG)
    assert await booted(home) == BootReport(active=RAG), "a second boot has nothing to do"


async def test_boot_with_a_setup_unloads_no_model(home: World) -> None:
    set_default("rag")
    async with home.controller() as mmd:
        await mmd.activate("other")
    report = await booted(home)
    assert (report.active, report.failed) == ((), {})
    assert "other" in report.skipped["rag"]
    assert await resident(home) == {"other"}


async def test_boot_goes_on_where_a_setup_is_broken(home: World) -> None:
    set_default("rag")
    home.behave("embed", exit_at_once={"status": 1, "stderr": "error: no"})
    report = await booted(home)
    assert (report.active, list(report.failed)) == ((), ["rag"])
    assert await resident(home) == set()


async def test_last_resident_models_come_back_together(home: World) -> None:
    set_restore_last()
    async with home.controller() as mmd:
        await activate_setup(mmd, require_setup("rag"))
    await record_now()
    await restarted(home)
    report = await booted(home)
    assert sorted(report.active) == sorted(RAG)
    assert await resident(home) == set(RAG)


async def test_what_still_fits_comes_back(home: World) -> None:
    """Since the reboot another model has been loaded, and one of the last is broken."""
    set_restore_last()
    async with home.controller() as mmd:
        await activate_setup(mmd, require_setup("rag"))
    await record_now()
    await restarted(home)
    home.behave("embed", exit_at_once={"status": 1, "stderr": "error: no"})
    async with home.controller() as mmd:
        await mmd.activate("other")
    report = await booted(home)
    assert (report.active, list(report.failed), list(report.skipped)) == (("rerank",), ["embed"], ["chat"])
    assert await resident(home) == {"rerank", "other"}

"""Idleness over a real user manager: sleep, then stop, and no request lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import httpx
import pytest

from mmd.control.lifecycle.idle_rules import loaded_models
from mmd.paths import config_file
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.watch import Pairs, Watch, read_pairs
from tests.systemd.serving import running, serving
from tests.systemd.world import World, wait_for

ROUNDS = 100
PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def gateway(world: World) -> AsyncIterator[tuple[httpx.AsyncClient, Watch]]:
    async with (
        serving(world) as at,
        running(at.watch.run(), at.gateway.idle.run()),
        httpx.AsyncClient(base_url=at.address, timeout=PATIENCE_SECONDS) as client,
    ):
        yield client, at.watch


def is_now(where: Residency, pairs: Pairs) -> bool:
    return residency(pairs.get("a", Pair())) is where


async def becomes(watch: Watch, where: Residency) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watch.until(lambda pairs: is_now(where, pairs))


async def ask(client: httpx.AsyncClient, **more: object) -> None:
    body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]} | more
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert "a-0" in answer.text


async def test_idle_model_sleeps_and_is_stopped_later(world: World) -> None:
    world.add("a", can_sleep=True)
    world.settings("[gateway]\nidle_sleep_seconds = 1\n[models.a]\nidle_stop_seconds = 1\n")
    async with gateway(world) as (client, watch):
        await ask(client)
        await becomes(watch, Residency.ASLEEP)
        await becomes(watch, Residency.ABSENT)
    assert world.events("sleep", "exit") == [("sleep", "a"), ("exit", "a")]


async def test_engine_that_cannot_sleep_is_stopped(world: World) -> None:
    world.add("a")
    async with gateway(world) as (client, watch):
        await ask(client, keep_alive=0)
        await becomes(watch, Residency.ABSENT)
        await ask(client)
        assert is_now(Residency.RESIDENT, watch.pairs)


async def test_gateway_that_starts_counts_from_what_systemd_says(world: World) -> None:
    world.add("a", can_sleep=True)
    async with world.controller() as mmd:
        before = monotonic()
        await mmd.activate("a")
        assert await loaded_models(mmd.manager, await read_pairs(mmd.manager), mmd.idleness, keep_alive=()) == ()
        [resident] = await loaded_models(mmd.manager, await read_pairs(mmd.manager), mmd.idleness, keep_alive={"a"})
        assert (resident.model_id, resident.is_asleep) == ("a", False)
        assert before < resident.since < monotonic()
        await mmd.sleep("a")
        [asleep] = await loaded_models(mmd.manager, await read_pairs(mmd.manager), mmd.idleness, keep_alive={"a"})
        assert asleep.is_asleep
        assert resident.since < asleep.since < monotonic()
        await mmd.activate("a")
        [woken] = await loaded_models(mmd.manager, await read_pairs(mmd.manager), mmd.idleness, keep_alive={"a"})
        assert woken.since > resident.since
    world.settings("[models.a]\nidle_sleep_seconds = 1\n")
    async with gateway(world) as (_, watch):
        await becomes(watch, Residency.ASLEEP)


@pytest.mark.parametrize("can_sleep", [True, False])
async def test_requests_in_the_moment_of_the_sleep_are_all_answered(world: World, can_sleep: bool) -> None:
    """Half of the requests arrive during a sleep or a stop: the engine would lose them if they were sent at once."""
    world.add("a", can_sleep=can_sleep)
    async with gateway(world) as (client, watch):
        async with asyncio.timeout(180):
            for number in range(ROUNDS if can_sleep else ROUNDS // 4):
                await ask(client, keep_alive=0)
                for _ in range(number % 25 * 4):  # each round meets another step of the sleep
                    await asyncio.sleep(0)
                await asyncio.gather(*(ask(client, stream=bool(one % 2)) for one in range(4)))
                await ask(client, keep_alive=-1)
        assert is_now(Residency.RESIDENT, watch.pairs)
    assert not world.events("overlap")
    assert len(world.events("sleep" if can_sleep else "exit")) > 10


async def test_pinned_model_gives_way_to_a_person_only(world: World) -> None:
    world.add("a", "b")
    world.settings("[models.a]\npinned = true\n")
    async with gateway(world) as (client, _):
        await ask(client)
        refused = await client.post("/v1/chat/completions", json={"model": "b", "messages": []})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gpu_pinned")
        await ask(client)
        async with world.controller() as mmd:
            assert (await mmd.activate("b")).evicted == ("a",)
        await ask(client)


async def test_sleeper_that_was_woken_in_between_is_not_stopped(world: World) -> None:
    world.add("a", can_sleep=True)
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert not await mmd.stop_asleep("a")
        await mmd.sleep("a")
        assert await mmd.stop_asleep("a")
        assert is_now(Residency.ABSENT, await read_pairs(mmd.manager))


async def test_installed_gateway_counts_on_after_it_was_killed(world: World, installed: str) -> None:
    """The gateway keeps no state of it: systemd tells since when a model is idle."""
    world.add("a")
    async with httpx.AsyncClient(base_url=installed, timeout=PATIENCE_SECONDS) as client:
        await ask(client)
        world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
    settings = config_file().read_text()
    config_file().write_text(settings.replace("[gateway]\n", "[gateway]\nidle_sleep_seconds = 1\n"))
    async with httpx.AsyncClient(base_url=installed, timeout=PATIENCE_SECONDS) as client:
        assert (await client.get("/health")).status_code == 200
        await asyncio.to_thread(wait_for, lambda: ("exit", "a") in world.events(), what="its stop")
        await ask(client)

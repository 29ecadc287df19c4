"""The gateway with several resident models: what fits stays, and only those that must leave are drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.gateway_peer import until
from tests.systemd.serving import Served, running, serving
from tests.systemd.world import World

TIMEOUT_SECONDS = 30.0


@dataclass
class Clients:
    world: World
    at: Served
    http: httpx.AsyncClient

    async def ask(self, model: str, *, stream: bool = False) -> httpx.Response:
        path = "/v1/embeddings" if model == "embed" else "/v1/chat/completions"
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        return await self.http.post(path, json={**body, "stream": stream})

    async def resident(self) -> list[str]:
        status = (await self.http.get("/status")).json()
        return sorted(one["id"] for one in status["resident"])

    @property
    def starts(self) -> list[str]:
        return [model for _, model in self.world.events("start")]


@asynccontextmanager
async def clients(world: World) -> AsyncIterator[Clients]:
    async with (
        serving(world) as at,
        running(at.watch.run()),
        httpx.AsyncClient(base_url=at.address, timeout=TIMEOUT_SECONDS) as http,
    ):
        yield Clients(world, at, http)


@pytest.fixture
def one_gpu(world: World) -> World:
    world.add_gpus(24)
    world.settings("[gateway]\nmin_residency_seconds = 0", residency="many")
    world.add_sized("chat", 14)
    world.add_sized("other", 14)
    world.add_sized("embed", 0.5, embedding=True)
    return world


async def test_chat_and_embedder_in_turns_never_swap(one_gpu: World) -> None:
    """They swapped each other out at every request."""
    async with clients(one_gpu) as at:
        for _ in range(10):
            assert (await at.ask("chat")).status_code == 200
            assert (await at.ask("embed")).status_code == 200
        assert sorted(at.starts) == ["chat", "embed"]
        assert await at.resident() == ["chat", "embed"]


async def test_only_the_model_that_must_leave_is_drained(one_gpu: World) -> None:
    one_gpu.behave("chat", chunks=20, chunk_seconds=0.1)
    async with clients(one_gpu) as at:
        assert (await at.ask("embed")).status_code == 200
        long = asyncio.create_task(at.ask("chat", stream=True))
        await until(lambda: at.at.gateway.scheduler.in_flight("chat") == 1)
        other = asyncio.create_task(at.ask("other"))
        await until(lambda: any(turn.waits_for for turn in at.at.gateway.scheduler.queue().turns))
        assert (await at.ask("embed")).status_code == 200  # meanwhile
        assert not long.done()
        assert (await long).text.endswith("data: [DONE]\n\n")
        assert (await other).status_code == 200
        assert await at.resident() == ["embed", "other"]
        assert at.starts.count("embed") == 1


async def test_two_chats_lie_on_two_gpus(world: World) -> None:
    world.add_gpus(24, 24)
    world.settings("[gateway]\nmin_residency_seconds = 0", residency="many")
    world.add_sized("chat", 14)
    world.add_sized("other", 14)
    async with clients(world) as at:
        answers = await asyncio.gather(*(at.ask(model) for model in ("chat", "other") * 5))
        assert [answer.status_code for answer in answers] == [200] * 10
        assert sorted(at.starts) == ["chat", "other"]


async def test_swaps_on_two_gpus_run_side_by_side(world: World) -> None:
    world.add_gpus(24, 24)
    world.settings("[gateway]\nmin_residency_seconds = 0", residency="many")
    for name in ("a", "b", "c", "d"):
        world.add_sized(name, 16)
        world.behave(name, load_seconds=1.0)
    async with clients(world) as at:
        await asyncio.gather(at.ask("a"), at.ask("b"))
        asking = [asyncio.create_task(at.ask(name)) for name in "cd"]
        await until(lambda: len(at.at.gateway.scheduler._state.swaps) == 2)
        assert [answer.text[:400] for answer in await asyncio.gather(*asking) if answer.status_code != 200] == []
        assert await at.resident() == ["c", "d"]


async def test_pinned_model_stays_and_the_other_leaves(one_gpu: World) -> None:
    one_gpu.settings("[gateway]\nmin_residency_seconds = 0\n[models.chat]\npinned = true", residency="many")
    async with clients(one_gpu) as at:
        assert (await at.ask("chat")).status_code == 200
        refused = await at.ask("other")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gpu_pinned")
        assert refused.json()["error"]["message"] == "other would replace chat, which is pinned"
        assert (await at.ask("embed")).status_code == 200  # which fits beside it

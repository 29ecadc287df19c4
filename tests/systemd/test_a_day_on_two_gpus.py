"""Several residents on a machine with GPUs of 24 and 16 GB: a setup, a heavy model beside it, a lease and a game.

The gateway is the installed service, and every step is read from its /status and from the journal.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from mmd.paths import config_file
from tests.systemd.world import World, run_mmd

# The setup "rag" lies on the small GPU, "heavy" and "other" take turns on the large one.
RAG = ("chat", "embed")
STEP_SECONDS = 20


class Day:
    """The machine, a client of its gateway, and the time at which the day began."""

    def __init__(self, world: World, devices: Sequence[str], client: httpx.AsyncClient) -> None:
        self.world = world
        self.large, self.small = devices
        self.client = client
        self.began = time.time()

    async def mmd(self, *words: str) -> str:
        done = await asyncio.to_thread(run_mmd, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def ask(self, model: str, path: str = "/v1/chat/completions") -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "input": "hello"}
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text

    async def where(self) -> dict[str, tuple[str, ...]]:
        """Return the devices of each resident."""
        status = (await self.client.get("/status")).json()
        return {one["id"]: tuple(one["devices"]) for one in status["resident"]}

    async def becomes(self, wanted: dict[str, tuple[str, ...]]) -> None:
        for _ in range(STEP_SECONDS * 20):
            if (where := await self.where()) == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(where)

    def journal(self, text: str) -> list[str]:
        """Return the lines of mmd in the journal since the day began that have this text."""
        return [line for line in self.world.journal(self.began) if text in line]


@pytest.fixture
async def day(world: World, address: str) -> Any:
    gpus = world.add_gpus(24, 16)
    gateway = config_file().read_text().partition("[gpu]")[0]
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n{gateway}', residency="many")
    world.add_sized("chat", 7, context=4096)
    world.add_sized("embed", 0.6, embedding=True)
    world.add_sized("heavy", 14, context=65536)
    world.add_sized_vllm("other", 15, context=65536)
    assert run_mmd("install").returncode == 0
    assert run_mmd("setup", "add", "rag", *RAG).returncode == 0
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        yield Day(world, gpus.devices, client)


async def test_day_on_two_gpus(day: Day) -> None:
    # A setup comes up together, on the GPU that it fills best.
    await day.mmd("activate", "rag")
    assert await day.where() == {"chat": (day.small,), "embed": (day.small,)}
    await day.ask("chat")
    await day.ask("embed", "/v1/embeddings")

    # A heavy model lies beside it, on the other GPU.
    await day.ask("heavy")
    up = {"chat": (day.small,), "embed": (day.small,), "heavy": (day.large,)}
    assert await day.where() == up
    shown = json.loads(await day.mmd("status", "--json"))
    assert {one["id"] for one in shown["resident"]} == set(up)

    # Another heavy one takes its place, and says so; the setup stays.
    await day.ask("other")
    assert await day.where() == {"chat": (day.small,), "embed": (day.small,), "other": (day.large,)}
    (swap,) = (event for event in json.loads(await day.mmd("events", "--json")) if event["model"] == "other")
    assert swap["evicted"] == ["heavy"]
    assert "heavy" in swap["why_evicted"]
    assert day.journal("unloading heavy")

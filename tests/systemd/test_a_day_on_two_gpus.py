"""Several residents on a machine with GPUs of 24 and 16 GB: a setup, a heavy model beside it, a lease and a game.

The gateway is the installed service, and every step is read from its /status and from the journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from mmd.paths import config_file
from tests.fakes.gamemode import fake_gamemode
from tests.fakes.nvml import FakeGpus
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for

# The setup "rag" lies on the small GPU, "heavy" and "other" take turns on the large one.
RAG = ("chat", "embed")
STEP_SECONDS = 20

Where = dict[str, tuple[str, ...]]


class Day:
    """The machine, a client of its gateway, and the time at which the day began."""

    def __init__(self, world: World, gpus: FakeGpus, client: httpx.AsyncClient) -> None:
        self.world = world
        self.gpus = gpus
        self.large, self.small = gpus.devices
        self.client = client
        self.began = time.time()

    async def mmd(self, *words: str) -> str:
        done = await asyncio.to_thread(run_mmd, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def rag(self) -> Where:
        """The setup, which lies on the small GPU throughout the day."""
        return {"chat": (self.small,), "embed": (self.small,)}

    async def request(self, model: str, path: str = "/v1/chat/completions") -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "input": "hello"}
        return await self.client.post(path, json=body)

    async def ask(self, model: str, path: str = "/v1/chat/completions") -> None:
        answer = await self.request(model, path)
        assert answer.status_code == 200, answer.text

    async def status(self) -> Any:
        return (await self.client.get("/status")).json()

    async def where(self) -> Where:
        """Return the devices of each resident."""
        return {one["id"]: tuple(one["devices"]) for one in (await self.status())["resident"]}

    @asynccontextmanager
    async def lease(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A lease whose program takes all that it is given."""
        program = (sys.executable, "-m", "tests.systemd.stress.borrower", "-", "60000")
        command = (sys.executable, "-m", "mmd", "lease", *words, "--", *program)
        variables = os.environ | {"MMD_FAKE_EVENTS": str(self.world.event_log)}
        lease = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, env=variables)
        try:
            yield lease
        finally:
            if lease.returncode is None:
                lease.terminate()
            await lease.wait()

    async def becomes(self, wanted: Where) -> None:
        for _ in range(STEP_SECONDS * 20):
            if (where := await self.where()) == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(where)

    async def held(self) -> dict[str, Any]:
        """Return the lease when it is held."""
        for _ in range(STEP_SECONDS * 20):
            (lease,) = (await self.status())["leases"]
            if lease["state"] == "held":
                return dict(lease)
            await asyncio.sleep(0.05)
        raise AssertionError(lease)

    def journal(self, text: str) -> list[str]:
        """Return the lines of mmd in the journal since the day began that have this text."""
        return [line for line in self.world.journal(self.began) if text in line]


@pytest.fixture
async def day(world: World, address: str) -> Any:
    gpus = world.add_gpus(24, 16)
    gateway = config_file().read_text().partition("[gpu]")[0]
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n{gateway}', residency="many")
    with config_file().open("a") as settings:
        settings.write('games = "yield"\n')
    world.add_sized("chat", 7, context=4096)
    world.add_sized("embed", 0.6, embedding=True)
    world.add_sized("heavy", 14, context=65536)
    world.add_sized_vllm("other", 15, context=65536)
    assert run_mmd("install").returncode == 0
    assert run_mmd("setup", "add", "rag", *RAG).returncode == 0
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        yield Day(world, gpus, client)
    for units in ("mmd-lease@*", "mmd-back@*"):  # before the world closes, where a restore would begin
        world.manager.systemctl("stop", units)


async def test_day_on_two_gpus(day: Day) -> None:
    # A setup comes up together, on the GPU that it fills best.
    await day.mmd("activate", "rag")
    assert await day.where() == day.rag
    await day.ask("chat")
    await day.ask("embed", "/v1/embeddings")

    # A heavy model lies beside it, on the other GPU.
    await day.ask("heavy")
    up = {**day.rag, "heavy": (day.large,)}
    assert await day.where() == up
    shown = json.loads(await day.mmd("status", "--json"))
    assert {one["id"] for one in shown["resident"]} == set(up)

    # Another heavy one takes its place, and says so; the setup stays.
    await day.ask("other")
    await day.becomes({**day.rag, "other": (day.large,)})
    (swap,) = (event for event in json.loads(await day.mmd("events", "--json")) if event["model"] == "other")
    assert swap["evicted"] == ["heavy"]
    assert "heavy" in swap["why_evicted"]
    assert day.journal("unloading heavy")
    await day.ask("heavy")
    await day.becomes(up)

    # A lease empties the large GPU and gives it back; the setup answers meanwhile, the heavy model is refused.
    async with day.lease("--gpu", "0") as lease:
        await day.becomes(day.rag)
        assert tuple((await day.held())["devices"]) == (day.large,)
        await day.ask("chat")
        refused = await day.request("heavy")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "gpu_leased")
        await asyncio.to_thread(wait_for, lambda: day.gpus.used_mib()[0] > 20000, what="its program has the memory")
        lease.terminate()
    await day.becomes(up)
    assert (await day.status())["leases"] == []

    # A game gets both GPUs, and everything is back after it.
    async with fake_gamemode(day.world.manager.environment["DBUS_SESSION_BUS_ADDRESS"]) as gamemode:
        game = await asyncio.create_subprocess_exec("sleep", "600")
        await gamemode.register(game.pid)
        await day.becomes({})
        assert "the game sleep" in (await day.held())["program"]
        await gamemode.unregister(game.pid)
        game.kill()
        await game.wait()
        await day.becomes(up)
    assert day.journal("GameMode reports the game sleep")
    assert day.journal("no game runs any more")
    for model in up:
        await day.ask(model, "/v1/embeddings" if model == "embed" else "/v1/chat/completions")

"""The gateway while somebody else swaps: no request hangs in an engine that has been put to sleep or ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest

from mmd.errors import SwapSuperseded
from mmd.gateway.gateway import Gateway
from mmd.gateway.limits import Limits
from mmd.gateway.live import LiveModels
from mmd.units.watch import Watch
from tests.systemd.world import World

SWAPS = 10
PATIENCE_SECONDS = 20.0  # for one answer, which may have to wait for two swaps


@asynccontextmanager
async def gateway(world: World, limits: Limits | None = None) -> AsyncIterator[str]:
    """In this process, because only a test's own controller has engines that sleep; its address."""
    async with world.controller() as controller:
        watch = Watch(controller.manager)
        await watch.refresh()
        watching = asyncio.create_task(watch.run())
        front = Gateway(LiveModels(controller, watch), limits)
        server = await asyncio.get_running_loop().create_server(front.front, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await front.drain(PATIENCE_SECONDS)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@dataclass
class Clients:
    """Each asks for `a` again and again."""

    address: str
    answered: list[int]
    streams: bool  # every second one
    stop: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def ask(self, number: int) -> None:
        body = {
            "model": "a",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": self.streams and number % 2 == 1,
        }
        async with httpx.AsyncClient(base_url=self.address, timeout=PATIENCE_SECONDS) as client:
            while not self.stop:
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                assert "a-0" in answer.text
                assert "a-2" in answer.text
                async with self.changed:
                    self.answered[number] += 1
                    self.changed.notify_all()

    async def all_had_an_answer(self) -> None:
        """To a request made since this was called: the first answer may have been on its way."""
        before = list(self.answered)
        async with self.changed:
            await self.changed.wait_for(
                lambda: all(now >= then + 2 for now, then in zip(self.answered, before, strict=True))
            )


@pytest.mark.parametrize("a_sleeps", [True, False])
@pytest.mark.parametrize("b_sleeps", [True, False])
async def test_swaps_from_outside_lose_no_request(world: World, a_sleeps: bool, b_sleeps: bool) -> None:
    """They used to hang in the sleeping engine until somebody woke it, or to end in a 502."""
    world.add("a", can_sleep=a_sleeps, chunk_seconds=0.002)
    world.add("b", can_sleep=b_sleeps)
    async with gateway(world) as address, world.controller() as outside:
        # llama-server cuts its streams short when it is stopped.
        clients = Clients(address, [0] * 6, streams=a_sleeps)
        async with asyncio.timeout(120), asyncio.TaskGroup() as asking:
            for number in range(len(clients.answered)):
                asking.create_task(clients.ask(number))
            for _ in range(SWAPS):
                await clients.all_had_an_answer()
                with suppress(SwapSuperseded):  # b was up, and those who wait for a came in before that could be read
                    await outside.activate("b")
            await clients.all_had_an_answer()
            clients.stop = True
    events = world.events("sleep", "wake", "request", "load-begin", "exit", "overlap")
    assert ("overlap", "b") not in events
    assert ("overlap", "a") not in events
    gone = [event for event in events if event in ([("sleep", "a")] if a_sleeps else [("exit", "a")])]
    assert len(gone) == SWAPS


async def test_sleep_by_hand_leaves_no_request_hanging(world: World) -> None:
    world.add("a", can_sleep=True, chunk_seconds=0.002)
    async with gateway(world) as address, httpx.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS) as http:
        clients = Clients(address, [0] * 6, streams=True)
        async with asyncio.timeout(120), asyncio.TaskGroup() as asking:
            for number in range(len(clients.answered)):
                asking.create_task(clients.ask(number))
            for _ in range(SWAPS):
                await clients.all_had_an_answer()
                assert (await http.post("/models/sleep", json={"model": "a"})).status_code == 200
            await clients.all_had_an_answer()
            clients.stop = True
    assert len(world.events("sleep")) == SWAPS

"""The gateway during swaps by others: no request hangs in an engine that was put to sleep or stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from mmd.errors import SwapSuperseded
from tests.gateway_peer import until
from tests.systemd.serving import running, serving
from tests.systemd.world import World

SWAPS = 10
PATIENCE_SECONDS = 20.0  # for one response, which may wait for two swaps


def question(*, stream: bool) -> dict[str, Any]:
    return {"model": "a", "messages": [{"role": "user", "content": "hello"}], "stream": stream}


@pytest.mark.parametrize("stream", [False, True])
async def test_request_that_reaches_a_sleeping_engine_is_answered(world: World, stream: bool) -> None:
    """The signals of a swap arrive late: the engine took the request, and would have kept it until its next wake."""
    world.add("a", "b", can_sleep=True)
    async with world.controller() as outside:
        await outside.activate("a")
        async with (
            serving(world) as at,
            httpx.AsyncClient(base_url=at.address, timeout=PATIENCE_SECONDS) as client,
        ):
            await outside.activate("b")
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=question(stream=stream)))
            await until(lambda: at.gateway.requests_at_engines > 0)
            async with running(at.watch.run()):
                answer = await asking
    assert (answer.status_code, "a-0" in answer.text) == (200, True)
    log = [event for event, model in world.events("sleep", "wake", "request") if model == "a"]
    # The request of the wake check, and ours once: the engine dropped the one that was taken back.
    assert log[log.index("sleep") :] == ["sleep", "wake", "request", "request"]


@dataclass
class Clients:
    """Clients that ask for `a` again and again."""

    address: str
    answered: list[int]
    streams: bool  # every second one
    stop: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def ask(self, number: int) -> None:
        body = question(stream=self.streams and number % 2 == 1)
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
        """Wait for a response to a request made after this call: the first response may have been sent before."""
        before = list(self.answered)
        async with self.changed:
            await self.changed.wait_for(
                lambda: all(now >= then + 2 for now, then in zip(self.answered, before, strict=True))
            )


@pytest.mark.parametrize("a_sleeps", [True, False])
@pytest.mark.parametrize("b_sleeps", [True, False])
async def test_swaps_from_outside_lose_no_request(world: World, a_sleeps: bool, b_sleeps: bool) -> None:
    """Requests that arrived too late at an engine that cannot sleep used to end in a 502."""
    world.add("a", can_sleep=a_sleeps, chunk_seconds=0.002)
    world.add("b", can_sleep=b_sleeps)
    async with serving(world) as at, running(at.watch.run()), world.controller() as outside:
        # llama-server cuts its streams short when it is stopped.
        clients = Clients(at.address, [0] * 6, streams=a_sleeps)
        async with asyncio.timeout(120), asyncio.TaskGroup() as asking:
            for number in range(len(clients.answered)):
                asking.create_task(clients.ask(number))
            for _ in range(SWAPS):
                await clients.all_had_an_answer()
                with suppress(SwapSuperseded):  # requests for a took the GPU before it was seen
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
    async with (
        serving(world) as at,
        running(at.watch.run()),
        httpx.AsyncClient(base_url=at.address, timeout=PATIENCE_SECONDS) as http,
    ):
        clients = Clients(at.address, [0] * 6, streams=True)
        async with asyncio.timeout(120), asyncio.TaskGroup() as asking:
            for number in range(len(clients.answered)):
                asking.create_task(clients.ask(number))
            for _ in range(SWAPS):
                await clients.all_had_an_answer()
                assert (await http.post("/models/sleep", json={"model": "a"})).status_code == 200
            await clients.all_had_an_answer()
            clients.stop = True
    assert len(world.events("sleep")) == SWAPS

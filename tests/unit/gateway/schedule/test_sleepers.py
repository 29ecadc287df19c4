"""Requests whose model is put to sleep, or swapped away, before its engine has responded."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from mmd.gateway.schedule.systemd_models import another_starts, was_evicted
from mmd.plan.residency import Pair, UnitState
from tests.gateway_peer import EngineRequest, Harness, RawClient, ReceivedResponse, chunk, harness, post, until

UP = UnitState("active", "running", loaded=True)
HELD = UnitState("active", "exited", loaded=True)


class Sleeper:
    """An engine that leaves the first requests on /v1/x without a response, as a sleeping vLLM does, and notices
    disconnects.
    """

    def __init__(self, running: Harness, *, hangs: int = 1, says: bytes = b"") -> None:
        self.dropped = 0
        self._hangs = hangs
        self._says = says
        running.peer("a").on["/v1/x"] = self._answer

    async def _answer(self, received: EngineRequest) -> None:
        if self._hangs:
            self._hangs -= 1
            await received.send(self._says)
            with suppress(ConnectionResetError):  # it disconnected without having read the response
                await received.gone()
            self.dropped += 1
        else:
            await received.answer(b'{"peer": "a"}')


async def _ask(running: Harness, count: int = 1) -> list[tuple[RawClient, asyncio.Task[ReceivedResponse]]]:
    clients = [await running.client() for _ in range(count)]
    asking = [(client, asyncio.create_task(client.ask(post({"model": "a"}, "/v1/x")))) for client in clients]
    await running.peer("a").has_received(count)
    return asking


# What vLLM has sent by then: nothing, or the head of a stream, which it sends before it schedules the request.
@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
async def test_request_to_an_engine_that_falls_asleep_is_queued_again(says: bytes) -> None:
    async with harness("a", "b") as running:
        sleeper = Sleeper(running, says=says)
        [(client, asking)] = await _ask(running)
        running.models.swapped_away("a")
        answer = await asking
        assert (answer.status, answer.json()["peer"]) == (200, "a")
        assert running.models.log == ["activate a", "ready a"]
        await until(lambda: sleeper.dropped == 1)
        assert [received.body for received in running.peer("a").requests] == [b'{"model": "a"}'] * 2
        assert (await client.ask(post({"model": "a"}, "/v1/x"))).status == 200  # on the same connection


async def test_those_who_were_taken_back_wait_behind_others() -> None:
    async with harness("a", "b") as running:
        Sleeper(running, hangs=20)
        asking = await _ask(running, 20)
        running.models.held["b"] = asyncio.Event()
        other = asyncio.create_task((await running.client()).ask(post({"model": "b"})))
        await until(lambda: running.gateway.scheduler.waiting_count == 1)
        running.models.swapped_away("a")
        running.models.held["b"].set()
        assert (await other).json()["peer"] == "b"
        assert [answer.json()["peer"] for answer in await asyncio.gather(*(task for _, task in asking))] == ["a"] * 20
        assert running.models.log == ["activate b", "ready b", "activate a", "ready a"]


async def test_answer_that_has_begun_is_left_to_finish() -> None:
    async with harness("a", "b") as running:
        finish = asyncio.Event()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            await finish.wait()
            await received.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        await client.send(post({"model": "a"}, "/v1/x"))
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        running.models.swapped_away("a")
        finish.set()
        assert [await client.chunk(), await client.chunk()] == [b"data: 2\n\n", b""]
        assert len(running.peer("a").requests) == 1
        assert running.models.log == []


async def test_engine_on_its_way_to_sleep_may_finish_what_it_has_begun() -> None:
    """With mode=wait vLLM ends its generations first: no request is taken back before it really sleeps."""
    async with harness("a", "b") as running:
        finish = asyncio.Event()

        async def generate(received: EngineRequest) -> None:
            await finish.wait()
            await received.answer(b'{"peer": "a"}')

        running.peer("a").on["/v1/x"] = generate
        [(_, asking)] = await _ask(running)
        running.models.active = None  # on its way
        for listener in running.models.listeners:
            listener()
        finish.set()
        assert (await asking).status == 200
        assert len(running.peer("a").requests) == 1


async def test_model_unloaded_during_connect_gets_no_request() -> None:
    async with harness("a", "b") as running:
        client = await running.client()
        pool = running.gateway.pool
        connect = pool.connect

        async def connect_late(address: str) -> object:
            connection = await connect(address)
            if not running.models.log:
                running.models.swapped_away("a")
            return connection

        pool.connect = connect_late  # type: ignore[method-assign,assignment]
        assert (await client.ask(post({"model": "a"}))).json()["peer"] == "a"
        assert running.models.log == ["activate a", "ready a"]
        assert len(running.peer("a").requests) == 1


async def test_fight_over_the_gpu_ends_in_an_error_that_says_so() -> None:
    async with harness("a", "b") as running:
        Sleeper(running, hangs=100)
        [(client, asking)] = await _ask(running)
        for times in range(1, 5):
            await running.peer("a").has_received(times)
            running.models.swapped_away("a")
        answer = await asking
        error = answer.json()["error"]
        assert (answer.status, error["code"]) == (503, "swap_contested")
        assert answer.headers["retry-after"] == "10"
        assert error["message"] == "a was unloaded 4 times before it responded"
        assert len(running.peer("a").requests) == 4
        assert (await client.ask(post({"model": "b"}))).status == 200


async def test_client_that_left_is_not_asked_for_again() -> None:
    async with harness("a", "b") as running:
        sleeper = Sleeper(running)
        [(client, asking)] = await _ask(running)
        client.disconnect()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: sleeper.dropped == 1)
        running.models.swapped_away("a")
        assert running.gateway.requests_at_engines == 0
        assert running.models.log == []


async def test_engine_ended_by_a_swap_is_asked_again() -> None:
    """An engine that cannot sleep is stopped, and requests that arrived too late have no response yet."""
    async with harness("a", "b") as running:
        running.models.making_room.add("a")

        async def end(received: EngineRequest) -> None:
            running.models.active = None
            received.die()
            del running.peer("a").on["/v1/x"]

        running.peer("a").on["/v1/x"] = end
        client = await running.client()
        assert (await client.ask(post({"model": "a"}, "/v1/x"))).json()["peer"] == "a"
        assert running.models.log == ["activate a", "ready a"]


async def test_nothing_is_kept_of_requests_that_are_done() -> None:
    async with harness("a") as running:
        client = await running.client()
        for _ in range(3):
            await client.ask(post({"model": "a"}))
        await until(lambda: running.gateway.requests_at_engines == 0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # A swap to b: a's token stops, and with it an engine that cannot sleep.
        (Pair(UP, UnitState("active", "exited", job="stop")), Pair(token=UnitState(job="start")), True),
        (Pair(), Pair(UnitState("activating"), HELD), True),
        # Loaded again meanwhile.
        (Pair(UnitState("activating", "start-post"), HELD), Pair(), True),
        # Stopped by the user: no other model wants the GPU.
        (Pair(), Pair(), False),
        (Pair(UnitState("deactivating", job="stop"), UnitState("active", job="stop")), Pair(), False),
        # It crashed: systemd has not noticed yet, cleans up, waits to start it again, or has given up.
        (Pair(UP, HELD), Pair(), False),
        (Pair(UnitState("deactivating", "stop-sigterm"), HELD), Pair(), False),
        (Pair(UnitState("activating", "auto-restart"), HELD), Pair(), False),
        (Pair(UnitState("failed"), HELD), Pair(), False),
    ],
)
def test_an_engine_that_made_room_is_told_from_one_that_died(a: Pair, b: Pair, expected: bool) -> None:
    assert was_evicted("a", {"a": a, "b": b}, {}) is expected


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        (Pair(token=UnitState(job="start")), True),
        (Pair(UnitState("activating", "start-post"), HELD), True),
        (Pair(UP, UnitState("activating", "start")), True),  # wakes
        (Pair(UP, HELD), False),
        (Pair(UP), False),  # asleep
        (Pair(UnitState("activating", "auto-restart"), HELD), False),
        (Pair(), False),
    ],
)
def test_a_swap_under_way_is_seen(b: Pair, expected: bool) -> None:
    assert another_starts({"a"}, {"a": Pair(UP, HELD), "b": b}) is expected
    assert not another_starts({"b"}, {"b": b})

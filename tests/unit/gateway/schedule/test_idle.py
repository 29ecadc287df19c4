"""The gateway puts idle models to sleep, and leaves busy ones alone."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from mmd.errors import EngineFailed
from mmd.gateway.http.limits import Limits
from mmd.plan.idle import Rules
from tests.gateway_peer import EngineRequest, Harness, RawClient, harness, post, until

SOON = Rules(sleep_seconds=0.02, stop_seconds=0.02)
ROUNDS = 100
TURNS = 30  # steps of the event loop, in which a forwarded request reaches its engine


def wish(model: str, keep_alive: object, path: str = "/v1/x") -> bytes:
    return post({"model": model, "messages": [{"keep_alive": "1h"}], "keep_alive": keep_alive}, path)


async def slept(running: Harness, *log: str) -> None:
    await until(lambda: running.models.log == list(log))


async def busy(running: Harness, request: bytes) -> tuple[RawClient, asyncio.Event]:
    """A client whose response lasts until the event."""
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer("a").on["/v1/slow"] = slow
    client = await running.client()
    before = _asked(running, "a")
    await client.send(request)
    await until(lambda: _asked(running, "a") > before)
    return client, release


def _asked(running: Harness, name: str) -> int:
    """Return how many requests have reached an engine; the gateway itself reads its metrics beside them."""
    return sum(received.target.startswith("/v1/") for received in running.peer(name).requests)


async def test_idle_model_is_put_to_sleep_and_stopped_later() -> None:
    async with harness("a") as running:
        running.models.sleepy.add("a")
        running.models.rules["a"] = SOON
        assert (await (await running.client()).ask(wish("a", None))).status == 200
        await running.models.sleep_is_looked_at()
        await slept(running, "sleep a", "stop asleep a")


async def test_journal_says_who_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mmd.gateway.schedule.idle"):
        async with harness("a") as running:
            running.models.sleepy.add("a")
            assert (await (await running.client()).ask(wish("a", 0))).status == 200
            await until(lambda: bool(caplog.records))
    [record] = caplog.records
    assert record.getMessage() == "putting a to sleep: unused for 0 s (keep_alive)"
    assert record.__dict__["MMD_MODEL"] == "a"


async def test_keep_alive_of_zero_is_sleep_at_once_and_once() -> None:
    """As with Ollama, keep_alive 0 does not apply to the next request."""
    async with harness("a") as running:
        client = await running.client()
        assert (await client.ask(wish("a", 0))).status == 200
        await slept(running, "sleep a")
        assert (await client.ask(wish("a", None))).status == 200
        await until(lambda: running.gateway.scheduler.idle_since("a") is not None)
        assert running.models.log == ["sleep a", "activate a", "ready a"]
        assert not running.gateway.idle.keep_seconds


async def test_keep_alive_of_zero_waits_for_the_last_answer() -> None:
    async with harness("a") as running:
        first, release = await busy(running, wish("a", "0s", "/v1/slow"))
        assert (await (await running.client()).ask(wish("a", None))).status == 200
        assert running.models.log == []
        release.set()
        assert (await first.answer()).status == 200
        await slept(running, "sleep a")


async def test_later_request_says_otherwise() -> None:
    async with harness("a") as running:
        running.models.rules["a"] = Rules(sleep_seconds=0.02)
        first, release = await busy(running, wish("a", 0, "/v1/slow"))
        assert (await (await running.client()).ask(wish("a", -1))).status == 200
        release.set()
        assert (await first.answer()).status == 200
        assert running.gateway.idle.keep_seconds == {"a": math.inf}
        await running.models.sleep_is_looked_at()
        assert running.models.log == []


async def test_ttl_is_the_same() -> None:
    async with harness("a") as running:
        assert (await (await running.client()).ask(post({"model": "a", "ttl": 0}))).status == 200
        await slept(running, "sleep a")


async def test_the_engine_gets_the_request_as_it_came() -> None:
    async with harness("a") as running:
        assert (await (await running.client()).ask(wish("a", "5m"))).status == 200
        assert b'"keep_alive": "5m"}' in running.peer("a").requests[0].body


async def test_invalid_time_is_refused() -> None:
    async with harness("a") as running:
        answer = await (await running.client()).ask(wish("a", "soon"))
        assert (answer.status, answer.json()["error"]["message"]) == (400, "the request's keep_alive is not a duration")
        assert not running.peer("a").requests


async def test_model_loaded_for_a_request_is_put_to_sleep_after_it() -> None:
    async with harness("a", "b") as running:
        assert (await (await running.client()).ask(wish("b", 0))).status == 200
        await slept(running, "activate b", "ready b", "sleep b")


async def test_failed_sleep_is_not_retried_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with harness("a") as running:
        running.models.failing["a"] = EngineFailed("a hangs", hint="mmd logs a")
        client = await running.client()
        assert (await client.ask(wish("a", 0))).status == 200
        await until(lambda: "a hangs" in caplog.text)
        assert (await client.ask(wish("a", None))).status == 200
        await running.models.sleep_is_looked_at()
        assert running.models.log == ["sleep a"]


async def test_request_while_its_model_is_put_to_sleep_wakes_it() -> None:
    """Forwarded at once it would hang in the engine; an engine that cannot sleep would lose it."""
    async with harness("a") as running:
        asking: list[asyncio.Task[object]] = []
        client, late = await running.client(), await running.client()

        async def ask() -> None:
            asking.append(asyncio.create_task(late.ask(wish("a", None))))
            await until(lambda: running.gateway.scheduler.queue().turns != ())
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert running.models.address("a") is not None, "the view does not know yet"
            assert _asked(running, "a") == 1

        running.models.unloading["a"] = ask
        assert (await client.ask(wish("a", 0))).status == 200
        await until(lambda: bool(asking))
        await asking[0]
        assert running.models.log == ["sleep a", "activate a", "ready a"]
        assert _asked(running, "a") == 2


@pytest.mark.parametrize("sleepy", [True, False])
async def test_requests_in_the_moment_of_the_sleep_are_all_answered(sleepy: bool) -> None:
    async with harness("a", "b") as running:
        running.models.sleepy = {"a"} if sleepy else set()
        running.models.rules["a"] = Rules(sleep_seconds=0.001, stop_seconds=0.001)
        falls_asleep = False

        async def take_a_while() -> None:
            nonlocal falls_asleep
            falls_asleep = True
            for _ in range(TURNS):
                await asyncio.sleep(0)
            falls_asleep = False

        async def answer(received: EngineRequest) -> None:
            await received.answer(b"{}", status="500 Too Late" if falls_asleep else "200 OK")

        running.models.unloading["a"] = take_a_while
        running.peer("a").on["/v1/x"] = answer
        clients = [await running.client() for _ in range(4)]
        for number in range(ROUNDS):
            for client in clients:
                await client.send(wish("a" if number % 7 else "b", None if number % 3 else 0))
            for client in clients:
                assert (await client.answer()).status == 200
            for _ in range(number % 13):  # the next round meets another step of the sleep
                await asyncio.sleep(0)
        assert "sleep a" in running.models.log


async def test_model_that_was_asked_for_in_between_is_left_alone() -> None:
    """Other models that were due were put to sleep first, and that takes a while."""
    async with harness("a") as running:
        client, release = await busy(running, wish("a", None, "/v1/slow"))
        assert not await running.gateway.scheduler.idle_out("a", lambda: running.models.sleep("a"))
        release.set()
        assert (await client.answer()).status == 200
        assert running.models.log == []


async def test_sleeper_is_not_stopped_while_a_swap_is_under_way() -> None:
    async with harness("a", "b") as running:
        running.models.sleepy.add("a")
        held = running.models.held["b"] = asyncio.Event()
        waiting = await running.client()
        await waiting.send(wish("b", None))
        await until(lambda: running.models.log == ["activate b"])
        running.models.rules["a"] = Rules(stop_seconds=1e-9)
        running.models.swapped_away("a")
        await running.models.sleep_is_looked_at()
        assert running.models.log == ["activate b"]
        held.set()
        assert (await waiting.answer()).status == 200
        await slept(running, "activate b", "ready b", "stop asleep a")


# -- pinned models


async def test_pinned_model_yields_to_a_command_but_to_no_request() -> None:
    async with harness("a", "b") as running:
        running.models.rules["a"] = Rules(sleep_seconds=0.001, pinned=True)
        client = await running.client()
        refused = await client.ask(wish("b", None))
        error = refused.json()["error"]
        assert (refused.status, error["code"], error["source"]) == (409, "gpu_pinned", "mmd")
        assert error["message"] == "b would replace a, which is pinned"
        assert error["hint"] == "mmd activate b   # anyway; or: mmd sleep a"
        assert (await client.ask(wish("a", 0))).status == 200
        await running.models.sleep_is_looked_at()
        assert running.models.log == []

        interactive = await running.client()
        assert (await interactive.ask(post({"model": "b"}, "/models/activate"))).status == 200
        assert (await client.ask(wish("b", None))).status == 200
        assert (await client.ask(wish("a", None))).status == 200  # it is loaded for a request, like others


async def test_model_pinned_while_others_wait_is_not_evicted() -> None:
    async with harness("a", "b", limits=Limits(min_residency_seconds=300)) as running:
        first, release = await busy(running, wish("a", None, "/v1/slow"))
        other = await running.client()
        await other.send(wish("b", None))
        await until(lambda: running.gateway.scheduler.queue().turns != ())
        running.models.rules["a"] = Rules(pinned=True)
        release.set()
        assert (await first.answer()).status == 200
        assert (await other.answer()).status == 409
        assert running.models.log == []

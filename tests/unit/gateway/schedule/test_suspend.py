"""Suspend under a gateway at work: responses end, requests wait, and models leave the GPU and are restored."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from mmd.errors import EngineFailed
from mmd.gateway.http.limits import Limits
from mmd.gateway.proxy.pool import EngineConnection
from mmd.plan.idle import Rules
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, Harness, RawClient, harness, post, until

STREAM = "/v1/chat/completions"
SLOW = "/v1/slow"


async def answering(running: Harness, name: str = "a", *, begins: bool = False) -> tuple[RawClient, asyncio.Event]:
    """A client whose response ends with the event, and whose stream has started if it `begins`."""
    release = asyncio.Event()

    async def slowly(received: EngineRequest) -> None:
        if begins:
            await received.begin_stream(b"data: 1\n\n")
        await release.wait()
        await received.send(b"0\r\n\r\n") if begins else await received.answer(b"{}")

    path = STREAM if begins else SLOW
    running.peer(name).on[path] = slowly
    client = await running.client()
    await client.send(post({"model": name, "stream": begins}, path))
    if begins:
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"data: 1\n\n"
    await until(lambda: path in [received.target for received in running.peer(name).requests])
    return client, release


async def waits(running: Harness, name: str) -> asyncio.Task[object]:
    """A request that waits for its model."""
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": name})))
    await until(lambda: name in running.gateway.scheduler.waiting_models)
    return asking


async def prepared(running: Harness, within_seconds: float = PATIENCE_SECONDS) -> None:
    await running.gateway.suspension.prepare(within_seconds)


async def awake(running: Harness) -> None:
    running.gateway.suspension.restore()
    await until(lambda: not running.gateway.scheduler.is_paused)


async def test_who_was_resident_is_put_away_and_comes_back() -> None:
    async with harness("a", "b") as running:
        await prepared(running)
        assert (running.models.active, running.models.gone) == (None, ["a"])
        await awake(running)
        assert running.models.log == ["put away", "bring back a", "activate a", "ready a"]
        assert (running.models.active, running.models.gone) == ("a", [])


async def test_answers_under_way_end_first() -> None:
    async with harness() as running:
        client, release = await answering(running)
        preparing = asyncio.create_task(prepared(running, 1e6))
        await until(lambda: running.gateway.scheduler.is_paused)
        late = await waits(running, "a")  # or others would go on asking until the time is over
        assert running.models.log == []
        release.set()
        assert (await client.answer()).status == 200
        await preparing
        assert running.models.log == ["put away"]
        await awake(running)
        await late


async def test_stream_over_the_suspend_limit_ends_with_an_error() -> None:
    async with harness() as running:
        client, _ = await answering(running, begins=True)
        await prepared(running, 0.0)
        error = json.loads((await client.rest()).split(b"data: ")[1].partition(b"\n")[0])["error"]
        assert (error["code"], error["source"]) == ("machine_suspends", "mmd")
        assert error["message"] == "the machine was suspended in the middle of this response of a"
        requests = running.gateway.counters.requests
        assert requests["a", STREAM, "suspended"] == 1


async def test_answers_hold_the_sleep_up_no_longer_than_a_swap() -> None:
    async with harness(limits=Limits(drain_seconds=0.0)) as running:
        await answering(running)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await prepared(running, 1e6)
        assert running.models.log == ["put away"]
        await awake(running)


async def test_request_that_is_just_connecting_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness() as running:
        pool = running.gateway.pool
        connect, connected, goes_on = pool.connect, asyncio.Event(), asyncio.Event()

        async def slowly(address: str) -> EngineConnection:
            connection = await connect(address)
            connected.set()
            await goes_on.wait()
            return connection

        monkeypatch.setattr(pool, "connect", slowly)
        client = await running.client()
        asking = asyncio.create_task(client.ask(post({"model": "a"})))
        await connected.wait()
        running.models.held[None] = asyncio.Event()
        await prepared(running, 0.0)
        goes_on.set()
        await until(lambda: "a" in running.gateway.scheduler.waiting_models)
        assert running.peer("a").requests == []
        running.models.held.pop(None).set()
        await awake(running)
        assert (await asking).status == 200


async def test_response_not_yet_started_is_retried_after_suspend() -> None:
    async with harness() as running:
        client, release = await answering(running)
        await prepared(running, 0.0)
        assert not client.reader.at_eof()
        release.set()
        await awake(running)
        assert (await client.answer()).status == 200


async def test_request_whose_engine_is_lost_in_suspend_is_retried() -> None:
    """It reached the engine just after the others had been taken back."""
    async with harness() as running:
        running.models.restarts = True
        client, _ = await answering(running)
        await running.gateway.scheduler.pause()
        await running.peer("a").stop()
        running.models.active = None
        await until(lambda: "a" in running.gateway.scheduler.waiting_models)
        del running.peer("a").on[SLOW]
        await awake(running)
        assert (await client.answer()).status == 200


async def test_websocket_ends() -> None:
    async with harness() as running:

        async def agree(received: EngineRequest) -> None:
            await received.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            await received.reader.read()

        running.peer("a").on["/v1/realtime"] = agree
        client = await running.client()
        offer = "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        await client.send(offer.encode())
        assert (await client.head())[0] == 101
        await prepared(running, 0.0)
        assert await client.rest() == b""


@pytest.mark.parametrize("named", [{"model": "a"}, {}])
async def test_request_that_comes_meanwhile_waits(named: dict[str, str]) -> None:
    """A request without a model means the model that will be restored, as it meant the active one before."""
    async with harness() as running:
        await prepared(running)
        client = await running.client()
        asking = asyncio.create_task(client.ask(post(named)))
        await until(lambda: "a" in running.gateway.scheduler.waiting_models)
        assert running.models.log == ["put away"]
        await awake(running)
        assert (await asking).status == 200
        assert running.models.log == ["put away", "bring back a", "activate a", "ready a"]


async def test_request_that_came_in_the_very_moment_is_served_after() -> None:
    """The scheduler's task was woken for it, and has not run yet."""
    async with harness("a", "b") as running:
        scheduler = running.gateway.scheduler
        waiting = asyncio.create_task(scheduler.wait("b"))
        await asyncio.sleep(0)
        await scheduler.pause()
        scheduler.resume()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting == running.peer("b").address
        scheduler.release("b")


async def test_loading_model_is_suspended_and_loaded_again_after() -> None:
    """Requests that wait for it do not notice."""
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        asking = await waits(running, "b")
        await until(lambda: "b" in running.models.loading)
        running.models.active = None
        await prepared(running)
        assert running.models.gone == ["b"]
        assert not asking.done()
        del running.models.held["b"]
        await awake(running)
        answer = await asking
        assert answer.status == 200  # type: ignore[attr-defined]
        assert running.models.log == ["activate b", "put away", "bring back b", "activate b", "ready b"]


async def test_who_would_have_to_go_at_once_does_not_come_back() -> None:
    """What requests wait for is loaded first; the suspended model is restored only if it fits beside."""
    async with harness("a", "b") as running:
        await prepared(running)
        asking = await waits(running, "b")
        await awake(running)
        await asking
        await until(lambda: not running.models.gone)
        assert running.models.log == ["put away", "bring back b", "activate b", "ready b", "bring back a"]


async def test_requests_are_admitted_before_all_are_restored() -> None:
    """With several residents, requests for the first do not wait until the last one is loaded."""
    async with harness("a", "b") as running:
        running.models.gone = ["a", "b"]
        running.models.active = None
        await running.gateway.scheduler.pause()
        await awake(running)
        assert running.models.log[:3] == ["bring back a", "activate a", "ready a"]
        await until(lambda: not running.models.gone)
        assert running.models.log[3:] == ["bring back b"]


async def test_pinned_model_comes_back_though_another_is_waited_for() -> None:
    async with harness("a", "b") as running:
        running.models.rules["a"] = Rules(pinned=True)
        await prepared(running)
        asking = await waits(running, "b")
        await awake(running)
        answer = await asking
        assert answer.status == 409  # type: ignore[attr-defined]
        assert running.models.active == "a"


async def test_model_on_the_cpu_is_left_alone() -> None:
    """Its streams continue after the sleep as if there had been none."""
    async with harness() as running:
        running.models.on_cpu.add("a")
        client, release = await answering(running)
        await prepared(running, 0.0)
        release.set()
        assert (await client.answer()).status == 200
        await awake(running)
        assert running.models.log == []


async def test_request_is_not_served_into_the_sleep_by_an_empty_gpu() -> None:
    async with harness(active=None) as running:
        await prepared(running)
        asking = await waits(running, "a")
        assert running.models.log == []
        await awake(running)
        await asking
        assert running.models.log == ["activate a", "ready a"]


async def test_two_sleeps_in_quick_succession() -> None:
    async with harness("a", "b") as running:
        await prepared(running)
        running.models.held["a"] = asyncio.Event()
        running.gateway.suspension.restore()
        await until(lambda: "a" in running.models.loading)
        await prepared(running)
        assert running.models.gone == ["a"]
        del running.models.held["a"]
        await awake(running)
        assert running.models.log == [
            *("put away", "bring back a", "activate a"),
            *("put away", "bring back a", "activate a", "ready a"),
        ]


async def test_waking_up_without_a_sleep_before_changes_nothing() -> None:
    async with harness() as running:
        await awake(running)
        running.gateway.suspension.restore()
        await (await running.client()).ask(post({"model": "a"}))
        assert running.models.log == []


async def test_the_same_said_twice_is_done_once() -> None:
    async with harness() as running:
        await prepared(running)
        await prepared(running)
        running.gateway.suspension.restore()
        await awake(running)
        assert running.models.log == ["put away", "bring back a", "activate a", "ready a"]


async def test_sleep_is_held_up_no_longer_than_it_may_be(caplog: pytest.LogCaptureFixture) -> None:
    async with harness() as running:
        released = running.models.held[None] = asyncio.Event()
        await prepared(running, 0.01)
        assert "models are still on a GPU" in caplog.text
        assert running.models.active == "a"
        running.gateway.suspension.restore()
        released.set()  # only now it can be restored
        await until(lambda: not running.gateway.scheduler.is_paused)
        assert running.models.log == ["put away", "bring back a", "activate a", "ready a"]


async def test_failed_restore_does_not_block_requests(caplog: pytest.LogCaptureFixture) -> None:
    async with harness("a", "b") as running:
        await prepared(running)
        running.models.failing["a"] = EngineFailed("a hangs", hint="mmd logs a")
        await awake(running)
        assert "cannot restore the suspended models" in caplog.text
        assert (await (await running.client()).ask(post({"model": "b"}))).status == 200


async def test_idle_model_is_not_put_to_sleep_during_suspend() -> None:
    async with harness() as running:
        running.models.rules["a"] = Rules(sleep_seconds=1e-9)
        await running.gateway.scheduler.pause()
        await running.models.sleep_is_looked_at()
        assert running.models.log == []
        running.gateway.scheduler.resume()
        await until(lambda: "sleep a" in running.models.log)


async def test_gateway_after_a_killed_one_restores_suspended_models(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with harness(active=None) as running:
            running.models.gone = ["a"]
            running.gateway.suspension.restore()
            await until(lambda: running.models.active == "a")

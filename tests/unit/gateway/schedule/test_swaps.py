"""Requests for models that are not resident: order, fairness, failure, and clients that do not wait."""

from __future__ import annotations

import asyncio

from mmd.errors import DoesNotFit, EngineFailed, SwapSuperseded
from mmd.gateway.http.limits import Limits
from tests.gateway_peer import EngineRequest, Harness, RawClient, ReceivedResponse, harness, post, until


async def _ask(running: Harness, model: str, path: str = "/v1/x") -> tuple[RawClient, asyncio.Task[ReceivedResponse]]:
    client = await running.client()
    return client, asyncio.create_task(client.ask(post({"model": model}, path)))


async def _waiting(running: Harness, count: int) -> None:
    """Wait until this many requests wait for their turn."""
    await until(lambda: running.gateway.scheduler.waiting_count == count)


async def _logged(running: Harness, line: str) -> None:
    await until(lambda: line in running.models.log)


def _hold(running: Harness, name: str) -> asyncio.Event:
    """Let responses of this engine on /v1/slow wait for the event."""
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer(name).on["/v1/slow"] = slow
    return release


async def test_request_for_another_model_swaps_it_in() -> None:
    async with harness("a", "b") as running:
        _, asking = await _ask(running, "b")
        assert (await asking).json()["peer"] == "b"
        assert running.models.log == ["activate b", "ready b"]


async def test_waiters_share_one_activation_and_go_in_order() -> None:
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        tasks = []
        for number in range(20):
            tasks.append((await _ask(running, "b", f"/v1/{number}"))[1])
            await _waiting(running, number + 1)
        assert running.peer("b").requests == []
        running.models.held["b"].set()
        assert all(answer.status == 200 for answer in await asyncio.gather(*tasks))
        assert running.models.log == ["activate b", "ready b"]


async def test_running_answers_finish_before_the_swap() -> None:
    async with harness("a", "b") as running:
        release = _hold(running, "a")
        _, slow = await _ask(running, "a", "/v1/slow")
        await running.peer("a").has_received(1)
        _, other = await _ask(running, "b")
        await _waiting(running, 1)
        assert running.models.log == []
        release.set()
        assert (await slow).status == 200
        assert (await other).json()["peer"] == "b"


async def test_swap_does_not_wait_longer_than_the_deadline() -> None:
    async with harness("a", "b", limits=Limits(drain_seconds=0.05, min_residency_seconds=0)) as running:
        _hold(running, "a")
        client, slow = await _ask(running, "a", "/v1/slow")
        await running.peer("a").has_received(1)
        _, other = await _ask(running, "b")
        assert (await other).json()["peer"] == "b"
        assert running.models.drain_seconds >= 0.05
        client.disconnect()
        await asyncio.gather(slow, return_exceptions=True)


async def test_later_requests_for_the_loaded_model_wait_behind_a_swap() -> None:
    """If admitted, a steady stream of them would keep the other model waiting forever."""
    async with harness("a", "b") as running:
        release = _hold(running, "a")
        _, slow = await _ask(running, "a", "/v1/slow")
        await running.peer("a").has_received(1)
        _, other = await _ask(running, "b")
        await _waiting(running, 1)
        late = [(await _ask(running, "a"))[1] for _ in range(5)]
        await _waiting(running, 6)
        assert len(running.peer("a").requests) == 1
        release.set()
        await slow
        assert (await other).json()["peer"] == "b"
        assert [answer.json()["peer"] for answer in await asyncio.gather(*late)] == ["a"] * 5
        assert running.models.log == ["activate b", "ready b", "activate a", "ready a"]


async def test_requests_of_one_model_are_served_together() -> None:
    """b, c, b, c: two swaps, in the order of the first of each."""
    async with harness("a", "b", "c") as running:
        release = _hold(running, "a")
        _, slow = await _ask(running, "a", "/v1/slow")
        await running.peer("a").has_received(1)
        tasks = []
        for number, name in enumerate("bcbc"):
            tasks.append((await _ask(running, name))[1])
            await _waiting(running, number + 1)
        release.set()
        await slow
        assert [answer.json()["peer"] for answer in await asyncio.gather(*tasks)] == list("bcbc")
        assert running.models.log == ["activate b", "ready b", "activate c", "ready c"]


async def test_failed_activation_fails_its_waiters_and_no_others() -> None:
    async with harness("a", "b", "c") as running:
        running.models.held["b"] = asyncio.Event()
        running.models.failing["b"] = EngineFailed(
            "b exited with status 1", hint="mmd logs b", engine_lines=("loading", "no such file")
        )
        failing = [(await _ask(running, "b"))[1] for _ in range(3)]
        await _logged(running, "activate b")
        _, other = await _ask(running, "c")
        await _waiting(running, 4)
        running.models.held["b"].set()
        for answer in await asyncio.gather(*failing):
            assert answer.status == 503
            error = answer.json()["error"]
            assert (error["message"], error["hint"]) == ("b exited with status 1", "mmd logs b")
            assert error["engine_lines"] == ["loading", "no such file"]
        assert (await other).json()["peer"] == "c"


async def test_errors_keep_their_meaning() -> None:
    async with harness("a", "b") as running:
        client = await running.client()
        cases = [
            (DoesNotFit("b needs 40 GB", hint="mmd estimate b"), 507, "does_not_fit"),
            (SwapSuperseded("c was activated meanwhile", hint="mmd status"), 409, "swap_superseded"),
            (RuntimeError("a bug"), 500, "internal_error"),
        ]
        for error, status, code in cases:
            running.models.failing["b"] = error
            answer = await client.ask(post({"model": "b"}))
            assert (answer.status, answer.json()["error"]["code"]) == (status, code)
        answer = await client.ask(post({"model": "nobody"}))
        assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.ask(post({"model": 5}))).status == 400
        running.models.active = None
        assert (await client.ask(post({}))).json()["error"]["hint"] == "mmd activate ID"


async def test_swap_without_waiting_requests_is_dropped() -> None:
    async with harness("a", "b") as running:
        release = _hold(running, "a")
        _, slow = await _ask(running, "a", "/v1/slow")
        await running.peer("a").has_received(1)
        leaving = [await _ask(running, "b") for _ in range(3)]
        await _waiting(running, 3)
        _, late = await _ask(running, "a")
        await _waiting(running, 4)
        for client, _ in leaving:
            client.disconnect()
        assert (await late).json()["peer"] == "a"  # although the first answer still runs
        assert running.models.log == []
        release.set()
        await slow
        await asyncio.gather(*(asking for _, asking in leaving), return_exceptions=True)


async def test_disconnect_of_one_client_affects_no_other() -> None:
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        leaver, left = await _ask(running, "b")
        _, stays = await _ask(running, "b")
        await _waiting(running, 2)
        leaver.disconnect()
        await _waiting(running, 1)
        running.models.held["b"].set()
        assert (await stays).json()["peer"] == "b"
        await asyncio.gather(left, return_exceptions=True)
        assert len(running.peer("b").requests) == 1


async def test_all_leave_in_the_moment_they_are_let_in() -> None:
    async with harness("a", "b") as running:
        scheduler = running.gateway.scheduler
        running.models.held["b"] = asyncio.Event()
        waits = [asyncio.create_task(scheduler.wait("b")) for _ in range(3)]
        await _logged(running, "activate b")
        running.models.held["b"].set()
        await until(lambda: scheduler.in_flight_count > 0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert scheduler.in_flight_count == 0


async def test_no_swap_for_clients_that_disconnect_at_once() -> None:
    async with harness("a", "b") as running:
        scheduler = running.gateway.scheduler
        waits = [asyncio.create_task(scheduler.wait("b")) for _ in range(3)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await until(lambda: not scheduler.is_serving)
        assert running.models.log == []


async def test_hundreds_wait_for_one_swap() -> None:
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        tasks = [(await _ask(running, "b"))[1] for _ in range(300)]
        await _waiting(running, 300)
        running.models.held["b"].set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
        assert running.models.log == ["activate b", "ready b"]

"""Responses that run while another model is asked for: never cut by default, and told the truth if they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mmd.gateway.http.limits import Limits
from tests.gateway_peer import EngineRequest, Harness, RawClient, chunk, harness, post, until

STREAM = "/v1/chat/completions"
PLAIN = "/v1/slow"
LIMITED = Limits(drain_seconds=0.05, min_residency_seconds=0)


async def streaming(running: Harness, *, body: dict[str, Any] | None = None) -> tuple[RawClient, asyncio.Event]:
    """A client in the middle of a stream of a, which ends with the event."""
    release = asyncio.Event()

    async def stream(received: EngineRequest) -> None:
        await received.begin_stream(b"data: 1\n\n")
        await release.wait()
        await received.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    running.peer("a").on[STREAM] = stream
    client = await running.client()
    await client.send(post(body or {"model": "a", "stream": True}, STREAM))
    await client.head()
    assert await client.chunk() == b"data: 1\n\n"
    return client, release


async def unanswered(running: Harness) -> asyncio.Task[Any]:
    """A request at the engine of a, which has not responded yet; a second try is answered."""

    async def hang(received: EngineRequest) -> None:
        del running.peer("a").on[PLAIN]
        await received.gone()

    running.peer("a").on[PLAIN] = hang
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, PLAIN)))
    await until(lambda: PLAIN in [received.target for received in running.peer("a").requests])
    return asking


async def ask(running: Harness, model: str, path: str = "/v1/x", **body: object) -> asyncio.Task[Any]:
    client = await running.client()
    return asyncio.create_task(client.ask(post({"model": model, **body}, path)))


def error_of(rest: bytes) -> dict[str, Any]:
    event = next(line for line in rest.split(b"\n") if line.startswith(b'data: {"error"'))
    error: dict[str, Any] = json.loads(event.removeprefix(b"data: "))["error"]
    return error


async def test_response_is_never_cut_by_default() -> None:
    """It was cut after 60 s, and the client was told that its engine had died."""
    assert Limits().drain_seconds == float("inf")
    async with harness("a", "b") as running:
        client, release = await streaming(running)
        other = await ask(running, "b")
        await until(lambda: any(turn.waits_for for turn in running.gateway.scheduler.queue().turns))
        [turn] = running.gateway.scheduler.queue().turns
        assert (turn.model, turn.expected_seconds) == ("b", None)
        assert [(one.model, one.requests) for one in turn.waits_for] == [("a", 1)]
        release.set()
        assert await client.chunk() == b"data: 2\n\n"
        assert (await other).json()["peer"] == "b"
        assert running.models.log == ["activate b", "ready b"]


async def test_limit_cuts_a_stream_and_says_who_was_loaded() -> None:
    async with harness("a", "b", limits=LIMITED) as running:
        client, _ = await streaming(running)
        other = await ask(running, "b")
        error = error_of(await client.rest())
        assert (error["code"], error["source"]) == ("swapped_out", "mmd")
        assert error["message"] == "this response of a was cut after 0.05 s: b took its memory"
        assert "gateway.drain_seconds" in error["hint"]
        assert (await other).json()["peer"] == "b"
        assert running.gateway.counters.requests["a", STREAM, "swapped_out"] == 1
        assert running.gateway.scheduler.in_flight_count == 0


async def test_limit_answers_a_request_that_has_no_response() -> None:
    """Sent again, it would run into the limit again."""
    async with harness("a", "b", limits=LIMITED) as running:
        asking = await unanswered(running)
        other = await ask(running, "b")
        answer = await asking
        assert (answer.status, answer.json()["error"]["code"]) == (503, "swapped_out")
        assert answer.headers["retry-after"] == "1"
        assert (await other).status == 200


async def test_activate_now_cuts_and_says_whom() -> None:
    async with harness("a", "b", limits=Limits(min_residency_seconds=300)) as running:
        client, _ = await streaming(running)
        retried = await unanswered(running)
        activated = (await (await ask(running, "b", "/models/activate", now=True))).json()
        assert activated["cut"] == [{"model": "a", "requests": 1}]
        assert error_of(await client.rest())["message"] == "this response of a was cut by a user: b took its memory"
        assert (await retried).json()["peer"] == "a"  # it had no response, and waited for a again
        assert running.models.log == ["activate b", "ready b", "activate a", "ready a"]


async def test_activate_without_now_waits_and_cuts_none() -> None:
    async with harness("a", "b") as running:
        client, release = await streaming(running)
        activating = await ask(running, "b", "/models/activate")
        await until(lambda: running.gateway.scheduler.waiting_count == 1)
        release.set()
        assert await client.chunk() == b"data: 2\n\n"
        assert (await activating).json()["cut"] == []


async def test_now_must_be_a_truth_value() -> None:
    async with harness("a", "b") as running:
        answer = await (await ask(running, "b", "/models/activate", now="yes"))
        assert (answer.status, answer.json()["error"]["message"]) == (400, '"now" must be true or false')


async def test_lease_cuts_after_its_own_limit() -> None:
    async with harness("a") as running:
        client, _ = await streaming(running)

        async def work() -> str:
            assert running.gateway.scheduler.acquire("a") is None
            return "leased"

        scheduler = running.gateway.scheduler
        assert await scheduler.drain_for({"a"}, work, limit_seconds=0.05, reason="the lease game") == "leased"
        error = error_of(await client.rest())
        assert error["message"] == "this response of a was cut after 0.05 s: the lease game took its memory"
        assert not scheduler.unloading


async def test_waiting_stream_is_told_whose_responses_it_waits_for() -> None:
    talkative = Limits(min_residency_seconds=0, first_comment_seconds=0.01, comment_seconds=0.02)
    async with harness("a", "b", limits=talkative) as running:
        running.models.expected = {"b": 12.0}
        client, release = await streaming(running)
        waiting = await running.client()
        await waiting.send(post({"model": "b", "stream": True}, STREAM))
        await waiting.head()
        # Without a time: the response may take any time.
        assert await waiting.chunk() == b": waiting for b: turn 1 of 1, after 1 running response of a\n\n"
        release.set()
        await client.chunk()


async def test_limit_is_a_known_end_of_the_wait() -> None:
    limits = Limits(min_residency_seconds=0, drain_seconds=30, first_comment_seconds=0.01, comment_seconds=0.02)
    async with harness("a", "b", limits=limits) as running:
        running.models.expected = {"b": 0.2}
        client, release = await streaming(running)
        waiting = await running.client()
        await waiting.send(post({"model": "b", "stream": True}, STREAM))
        await waiting.head()
        await until(lambda: running.gateway.scheduler.position("b").expected_seconds is not None)
        expected = running.gateway.scheduler.position("b").expected_seconds
        assert expected is not None
        assert 29 < expected <= 30.2
        release.set()
        await client.chunk()


@pytest.mark.parametrize("count", [1, 1000])
async def test_streams_survive_swaps_of_others(count: int) -> None:
    """A hundred streams at a time, while two other models are asked for."""
    async with harness("a", "b", "c") as running:
        cut = 0
        for _ in range(max(1, count // 100)):
            clients = [await streaming(running) for _ in range(min(count, 100))]
            others = [await ask(running, name) for name in "bc"]
            await until(lambda: running.gateway.scheduler.waiting_count == 2)
            for _, release in clients:
                release.set()
            for client, _ in clients:
                cut += await client.chunk() != b"data: 2\n\n"
                client.disconnect()
            await asyncio.gather(*others)
            await (await ask(running, "a"))
        assert cut == 0
        assert ("a", STREAM, "swapped_out") not in running.gateway.counters.requests


async def test_sleep_now_cuts_and_says_so() -> None:
    async with harness("a") as running:
        client, _ = await streaming(running)
        unanswered_too = await unanswered(running)
        asleep = await (await ask(running, "a", "/models/sleep", now=True))
        assert asleep.json()["gone"] == ["a"]
        error = error_of(await client.rest())
        assert error["message"] == "this response of a was cut by a user: the model was put to sleep"
        assert (await unanswered_too).json()["error"]["code"] == "swapped_out"  # or it would load the model again
        assert running.models.log == ["sleep a"]

"""Waiting requests: slices, backoffs, a full queue, and streams that are told their position."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref

import pytest

from mmd.errors import EngineFailed
from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.feed import EventKind
from tests.gateway_peer import EngineRequest, Harness, RawClient, harness, post, until

# Long enough that a test never sees it end.
LONG_SLICE = Limits(min_residency_seconds=300, max_wait_seconds=600)
TALKATIVE = Limits(min_residency_seconds=0, first_comment_seconds=0.01, comment_seconds=0.02)


def stream(model: str, path: str = "/v1/chat/completions") -> bytes:
    return post({"model": model, "stream": True}, path)


async def waiting(running: Harness, count: int) -> None:
    await until(lambda: running.gateway.scheduler.waiting_count == count)


async def busy(running: Harness, model: str) -> tuple[RawClient, asyncio.Event]:
    """A client whose response lasts until the event."""
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer(model).on["/v1/slow"] = slow
    client = await running.client()
    await client.send(post({"model": model}, "/v1/slow"))
    await running.peer(model).has_received(1)
    return client, release


async def test_model_in_use_keeps_the_gpu_for_its_slice() -> None:
    """A B A B becomes A A B B."""
    async with harness("a", "b", limits=LONG_SLICE) as running:
        first, release = await busy(running, "a")
        other = await running.client()
        await other.send(post({"model": "b"}))
        await waiting(running, 1)
        for _ in range(3):
            assert (await (await running.client()).ask(post({"model": "a"}))).json()["peer"] == "a"
        assert running.models.log == []
        release.set()
        await first.answer()
        assert (await other.answer()).json()["peer"] == "b"  # no request goes to a any more


async def test_activation_by_hand_does_not_wait_for_the_slice() -> None:
    async with harness("a", "b", limits=LONG_SLICE) as running:
        running.models.expected = {"b": 60.0}
        first, release = await busy(running, "a")
        other = await running.client()
        await other.send(post({"model": "b"}))
        await waiting(running, 1)
        release.set()
        await first.answer()
        assert (await (await running.client()).ask(post({"model": "b"}, "/models/activate"))).status == 200
        assert (await other.answer()).json()["peer"] == "b"
        assert running.models.log == ["activate b", "ready b"]


async def test_model_that_failed_to_load_is_left_alone_for_a_while() -> None:
    async with harness("a", "b") as running:
        running.models.failing["b"] = EngineFailed("b did not start: out of memory", hint="mmd logs b")
        client = await running.client()
        assert (await client.ask(post({"model": "b"}))).json()["error"]["code"] == "engine_failed"
        refused = await client.ask(post({"model": "b"}))
        assert (refused.status, refused.json()["error"]["code"]) == (503, "try_later")
        assert (
            refused.json()["error"]["message"] == "b did not start: out of memory; the next attempt is possible in 10 s"
        )
        assert 9 <= int(refused.headers["retry-after"]) <= 10
        assert running.models.log == ["activate b"]
        assert (await client.ask(post({"model": "a"}))).status == 200

        del running.models.failing["b"]  # an interactive activation is tried again at once, and then it succeeds
        interactive = await running.client()
        assert (await interactive.ask(post({"model": "b"}, "/models/activate"))).status == 200
        assert (await client.ask(post({"model": "b"}))).status == 200


async def test_failure_is_remembered_without_those_who_met_it() -> None:
    """With its traceback it kept the last of them, and the body of that request."""
    async with harness("a", "b") as running:
        error = EngineFailed("b did not start", hint="mmd logs b")
        running.models.failing["b"] = error
        client = await running.client()
        assert (await client.ask(post({"model": "b"}))).json()["error"]["code"] == "engine_failed"
        del running.models.failing["b"]
        error_ref = weakref.ref(error)
        del error
        gc.collect()
        assert error_ref() is None


async def test_full_waiting_room_turns_away_with_a_time() -> None:
    async with harness("a", "b", limits=Limits(max_waiting=2, min_residency_seconds=0)) as running:
        running.models.expected = {"b": 40.0}
        running.models.held["b"] = asyncio.Event()
        waiters = [await running.client() for _ in range(2)]
        for client in waiters:
            await client.send(post({"model": "b"}))
        await waiting(running, 2)
        refused = await (await running.client()).ask(post({"model": "b"}))
        assert (refused.status, refused.json()["error"]["code"]) == (503, "try_later")
        assert 35 <= int(refused.headers["retry-after"]) <= 40
        running.models.held["b"].set()
        assert [(await client.answer()).status for client in waiters] == [200, 200]


async def test_bodies_of_those_who_wait_are_bounded_together() -> None:
    async with harness("a", "b", limits=Limits(waiting_bytes=1000, min_residency_seconds=0)) as running:
        running.models.held["b"] = asyncio.Event()
        large = post({"model": "b", "prompt": "x" * 900})
        waiter, turned_away = await running.client(), await running.client()
        await waiter.send(large)
        await waiting(running, 1)
        assert (await turned_away.ask(large)).json()["error"]["code"] == "try_later"
        running.models.held["b"].set()
        assert (await waiter.answer()).status == 200
        assert (await turned_away.ask(large)).status == 200


async def test_waiting_stream_gets_its_position_then_the_response() -> None:
    async with harness("a", "b", "c", limits=TALKATIVE) as running:
        running.models.expected = {"b": 30.0, "c": 12.0}
        running.models.held["b"] = asyncio.Event()

        async def talk(received: EngineRequest) -> None:
            await received.begin_stream(b'data: {"n": 1}\n\n', b"data: [DONE]\n\n")
            await received.send(b"0\r\n\r\n")

        running.peer("c").on["/v1/chat/completions"] = talk
        first = await running.client()
        await first.send(post({"model": "b"}))
        await waiting(running, 1)
        second = await running.client()
        await second.send(stream("c"))
        status, headers = await second.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert await second.chunk() == b": waiting for c: turn 2 of 2, about 42 s\n\n"
        assert await second.chunk() == b": waiting for c: turn 2 of 2, about 42 s\n\n"
        running.models.held["b"].set()
        assert (await first.answer()).status == 200
        events = [piece for piece in await _chunks(second) if not piece.startswith(b":")]
        assert events == [b'data: {"n": 1}\n\n', b"data: [DONE]\n\n"]
        assert (await second.ask(post({"model": "c"}))).status == 200  # the connection can be used again


async def test_waiting_stream_gets_a_failed_load_as_an_error_event() -> None:
    async with harness("a", "b", limits=TALKATIVE) as running:
        running.models.held["b"] = asyncio.Event()
        running.models.failing["b"] = EngineFailed("b did not start", hint="mmd logs b")
        client = await running.client()
        await client.send(stream("b"))
        await client.head()
        await client.chunk()
        running.models.held["b"].set()
        event = (await _chunks(client))[-1]
        assert json.loads(event.strip().removeprefix(b"data: "))["error"]["message"] == "b did not start"


@pytest.mark.parametrize(
    ("path", "start"), [("/v1/chat/completions", b"data: "), ("/v1/messages", b"event: error\ndata: ")]
)
async def test_waiting_stream_gets_the_engines_refusal_as_an_event(path: str, start: bytes) -> None:
    async with harness("a", "b", limits=TALKATIVE) as running:
        running.models.held["b"] = asyncio.Event()

        async def refuse(received: EngineRequest) -> None:
            await received.answer(b'{\n "error": {"message": "too long"}\n}', status="400 Bad Request")

        running.peer("b").on[path] = refuse
        client = await running.client()
        await client.send(stream("b", path))
        await client.head()
        running.models.held["b"].set()
        event = (await _chunks(client))[-1]
        assert event.startswith(start)
        assert json.loads(event.removeprefix(start)) == {"error": {"message": "too long"}}


async def test_waiting_stream_whose_engine_dies_is_told_and_cut() -> None:
    async with harness("a", "b", limits=TALKATIVE) as running:
        running.models.held["b"] = asyncio.Event()

        async def die(received: EngineRequest) -> None:
            await received.begin_stream(b"data: half\n\n")
            received.die()

        running.peer("b").on["/v1/chat/completions"] = die
        client = await running.client()
        await client.send(stream("b"))
        await client.head()
        running.models.held["b"].set()
        rest = await client.rest()
        assert b"data: half" in rest
        assert b"b ended in the middle of this response" in rest
        assert not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        post({"model": "b"}),
        post({"model": "b", "stream": False}),
        post({"model": "b", "messages": [{"content": '"stream": true'}]}),
        stream("b", "/v1/embeddings"),
    ],
    ids=["no stream", "stream off", "in a message", "not a path that streams"],
)
async def test_others_wait_in_silence(request_bytes: bytes) -> None:
    async with harness("a", "b", limits=TALKATIVE) as running:
        running.models.held["b"] = asyncio.Event()
        client = await running.client()
        await client.send(request_bytes)
        talked = await running.client()
        await talked.send(stream("b"))
        await talked.head()
        await talked.chunk()  # so comments have been due
        running.models.held["b"].set()
        answer = await client.answer()
        assert (answer.status, answer.json()["peer"]) == (200, "b")


async def test_listeners_hear_of_the_queue() -> None:
    async with harness("a", "b") as running:
        running.models.held["b"] = asyncio.Event()
        running.models.expected = {"b": 7.0}
        with running.gateway.feed.subscribe() as subscription:
            client = await running.client()
            await client.send(post({"model": "b"}))
            notice = await anext(subscription.__aiter__())
            assert notice.kind is EventKind.QUEUE
            turn = notice.data.turns[0]
            assert (turn.model, turn.waiting) == ("b", 1)
            assert 0 < turn.expected_seconds <= 7.0
            record = (await (await running.client()).ask(b"GET /queue HTTP/1.1\r\nHost: localhost\r\n\r\n")).json()
            assert record["turns"][0]["waiting"] == 1
            running.models.held["b"].set()
            await client.answer()


async def test_idle_models_are_known_by_their_last_answer() -> None:
    async with harness("a", "b") as running:
        scheduler = running.gateway.scheduler
        assert (scheduler.in_flight("a"), scheduler.idle_since("a")) == (0, None)
        client, release = await busy(running, "a")
        assert (scheduler.in_flight("a"), scheduler.idle_since("a")) == (1, None)
        release.set()
        await client.answer()
        assert scheduler.in_flight("a") == 0
        assert scheduler.idle_since("a") is not None


async def _chunks(client: RawClient) -> list[bytes]:
    chunks = []
    while piece := await client.chunk():
        chunks.append(piece)
    return chunks


async def test_waiting_requests_get_retry_after_when_the_gateway_stops() -> None:
    async with harness("a", "b", "c") as running:
        running.models.held["b"] = asyncio.Event()
        clients = [await running.client() for _ in range(2)]
        for client, model in zip(clients, "bc", strict=True):
            await client.send(post({"model": model}))
        await waiting(running, 2)
        await running.gateway.drain(0.05)
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.json()["error"]["code"]) == (503, "try_later")
            assert "retry-after" in answer.headers

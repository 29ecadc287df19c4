"""Everything on the port that is not for an engine."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from mmd.control.models.setups import Setup
from mmd.errors import EngineFailed, PlacementChanged, WrongUsage
from tests.gateway_peer import EngineRequest, Harness, post, until


async def test_reading(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    status = (await http.get("/status")).json()
    assert (status["active"], [one["id"] for one in status["resident"]]) == ("a", ["a"])
    assert (await http.get("/resources")).json()["ram"]["used_bytes"] == 1
    listed = (await http.get("/models")).json()
    assert [(model["id"], model["status"]) for model in listed] == [("a", "active"), ("b", "absent")]


async def test_idle_time_of_a_model(http: httpx.AsyncClient, running: Harness) -> None:
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    async def idle_seconds() -> list[float | None]:
        return [model["idle_seconds"] for model in (await http.get("/models")).json()]

    running.peer("a").on["/v1/slow"] = slow
    assert await idle_seconds() == [None, None]
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    assert await idle_seconds() == [0.0, None]
    release.set()
    assert (await asking).status == 200
    while not (passed := (await idle_seconds())[0]):
        assert passed is not None
    assert passed < 60


async def test_setups_are_listed_beside_models(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.named_setups["rag"] = Setup("rag", ("a", "b"), "search")
    listed = (await http.get("/models")).json()
    assert [(one["id"], one["type"]) for one in listed] == [("a", "chat"), ("b", "chat"), ("rag", "setup")]
    assert listed[2]["models"] == ["a", "b"]
    assert [one["id"] for one in (await http.get("/v1/models")).json()["data"]] == ["a", "b"], "clients pick a model"


async def test_setup_is_activated_put_to_sleep_and_stopped(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.named_setups["rag"] = Setup("rag", ("b",), expose=("b",))
    done = (await http.post("/models/activate", json={"model": "rag"})).json()
    assert (done["success"], done["active"]) == (True, "b")
    assert (await http.post("/switch", json={"model_id": "rag"})).json()["active"] == "b"
    slept = (await http.post("/models/sleep", json={"model": "rag", "level": 1})).json()
    assert (slept["success"], slept["gone"]) == (True, ["b"])
    assert (await http.post("/models/stop", json={"model": "rag"})).json()["success"]
    assert running.models.log == [
        *("activate b, unloading a", "expose b", "activate b, unloading none", "expose b"),
        *("sleep b at 1", "hide b", "stop b", "hide b"),
    ]
    assert running.models.asked_last == "b"


async def test_setup_lets_answers_of_what_leaves_finish(http: httpx.AsyncClient, running: Harness) -> None:
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.models.named_setups["rag"] = Setup("rag", ("b",))
    running.peer("a").on["/v1/slow"] = slow
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    activating = asyncio.create_task(http.post("/models/activate", json={"model": "rag"}))
    await until(lambda: bool(running.gateway.scheduler.unloading))
    assert running.models.log == []
    release.set()
    assert (await asking).status == 200
    assert (await activating).status_code == 200
    assert running.models.log[0] == "activate b, unloading a"


async def test_setup_is_planned_again_when_others_are_in_its_way(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.named_setups["rag"] = Setup("rag", ("b",))
    running.models.failing["rag"] = PlacementChanged("c holds the memory", hint="mmd status")
    assert (await http.post("/models/activate", json={"model": "rag"})).status_code == 200
    assert running.models.log[:2] == ["activate b, unloading a"] * 2


async def test_setup_that_cannot_be_exposed_unloads_no_model(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.named_setups["rag"] = Setup("rag", ("b",), expose=("b",))
    running.models.failing["rag"] = WrongUsage("no API keys", hint="mmd key add NAME")
    refused = await http.post("/models/activate", json={"model": "rag"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "no API keys")
    assert running.models.log == []


async def test_models_in_openais_form(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert listed["data"][1] == {
        "id": "b",
        "object": "model",
        "created": 0,
        "owned_by": "mmd",
        "aliases": [],
        "status": "absent",
    }
    assert (await http.get("/v1/models/a")).json()["status"] == "active"
    assert (await http.get("/v1/models/c")).status_code == 404


async def test_activate_sleep_stop(http: httpx.AsyncClient, running: Harness) -> None:
    assert (await http.post("/models/activate", json={"model": "b"})).json()["active"] == "b"
    assert (await http.post("/switch", json={"model_id": "a"})).json()["active"] == "a"
    assert (await http.post("/models/sleep", json={"model": "a"})).json()["active"] is None
    assert (await http.post("/models/sleep")).status_code == 200
    assert (await http.post("/models/sleep", json={"model": "a", "level": 2})).status_code == 200
    assert (await http.post("/models/sleep", json={"level": "deep"})).status_code == 400
    assert (await http.post("/models/stop", json={"model": "b"})).status_code == 200
    assert (await http.post("/models/stop", json={})).status_code == 200
    assert running.models.log == [
        *("activate b", "ready b", "activate a", "ready a"),
        *("sleep a", "sleep None", "sleep a at 2", "stop b", "stop None"),
    ]


async def test_sleep_lets_answers_finish_and_says_who_went(http: httpx.AsyncClient, running: Harness) -> None:
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer("a").on["/v1/slow"] = slow
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    other = await http.post("/models/sleep", json={"model": "b"})  # which has nothing to answer
    assert other.json()["gone"] == ["a"]
    sleeping = [asyncio.create_task(http.post("/models/sleep", json={"model": name})) for name in ("a", None)]
    assert (await http.get("/health")).status_code == 200
    assert running.models.log == ["sleep b"]
    release.set()
    assert (await asking).status == 200
    assert [(await done).status_code for done in sleeping] == [200, 200]
    assert sorted(running.models.log) == ["sleep None", "sleep a", "sleep b"]


async def test_sleep_by_hand_is_not_held_up_by_those_who_come_after_it(
    http: httpx.AsyncClient, running: Harness
) -> None:
    """Let in, a steady stream of requests would keep the model awake until the drain is given up."""
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer("a").on["/v1/slow"] = slow
    first, late = await running.client(), await running.client()
    answering = asyncio.create_task(first.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    sleeping = asyncio.create_task(http.post("/models/sleep", json={"model": "a"}))
    await until(lambda: "a" in running.gateway.scheduler.unloading)
    waiting = asyncio.create_task(late.ask(post({"model": "a"})))
    await until(lambda: running.gateway.scheduler.waiting_count == 1)
    release.set()
    assert (await answering).status == 200
    assert (await sleeping).status_code == 200
    assert (await waiting).status == 200
    assert running.models.log == ["sleep a", "activate a", "ready a"]


async def test_empty_sleep_does_not_end_the_unload_of_another(running: Harness) -> None:
    """Requests were let in to a model that was about to sleep, and hung there."""
    scheduler = running.gateway.scheduler
    nobody, somebody = asyncio.Event(), asyncio.Event()
    of_nobody = asyncio.create_task(scheduler.drain_for((), nobody.wait))
    await asyncio.sleep(0)
    of_somebody = asyncio.create_task(scheduler.drain_for({"a"}, somebody.wait))
    await until(lambda: "a" in scheduler.unloading)
    nobody.set()
    await of_nobody
    assert scheduler.acquire("a") is None
    somebody.set()
    await of_somebody


async def test_level_of_a_sleep(http: httpx.AsyncClient, running: Harness) -> None:
    assert (await http.post("/models/sleep", json={"model": "a", "level": 2})).json()["gone"] == ["a"]
    for level in ("2", 1.5, True):
        assert (await http.post("/models/sleep", json={"model": "a", "level": level})).status_code == 400
    assert running.models.log == ["sleep a at 2"]


async def test_activation_lets_answers_finish(http: httpx.AsyncClient, running: Harness) -> None:
    release = asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer("a").on["/v1/slow"] = slow
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    switching = asyncio.create_task(http.post("/switch", json={"model_id": "b"}))
    assert (await http.get("/health")).status_code == 200
    assert running.models.log == []
    release.set()
    assert (await asking).status == 200
    assert (await switching).json()["active"] == "b"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"nonsense", b'{"model": 1}', b'{"model": ""}', b'{"model_id": "a"}']
)
async def test_bad_bodies_are_named(http: httpx.AsyncClient, content: bytes) -> None:
    response = await http.post("/models/activate", content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["source"]) == ("invalid_request_error", "mmd")
    assert "mmd activate" in error["hint"]


async def test_errors(http: httpx.AsyncClient, running: Harness) -> None:
    assert (await http.post("/models/activate", json={"model": "c"})).json()["error"]["code"] == "model_not_found"
    assert (await http.post("/models/stop", json={"model": "c"})).status_code == 404
    assert (await http.get("/nowhere")).json()["error"]["code"] == "not_found"
    wrong_method = await http.get("/models/stop")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    running.models.failing["b"] = EngineFailed("b exited", hint="mmd logs b")
    assert (await http.post("/switch", json={"model_id": "b"})).status_code == 503
    running.models.failing["b"] = RuntimeError("a bug")
    response = await http.post("/switch", json={"model_id": "b"})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"model": "\\ud800"}', b"\xff", b'{"model": 1e999}'])
async def test_bodies_that_are_hard_to_read(http: httpx.AsyncClient, content: bytes) -> None:
    response = await http.post("/models/activate", content=content)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["source"] == "mmd"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "DELETE"])
async def test_methods_that_are_not_there(http: httpx.AsyncClient, method: str) -> None:
    refused = await http.request(method, "/hf/search")
    assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


async def test_head(http: httpx.AsyncClient) -> None:
    answered = await http.head("/openapi.json")
    assert (answered.status_code, answered.content) == (200, b"")


async def test_health_check_needs_no_asgi_server(running: Harness) -> None:
    client = await running.client()
    for _ in range(2):
        answer = await client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (answer.status, answer.json(), "connection" in answer.headers) == (200, {"status": "ok"}, False)
    answer = await client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.json(), answer.headers["connection"]) == (200, {"status": "ok"}, "close")
    assert await client.rest() == b""


async def test_health_check_of_a_page_can_be_read_by_it(http: httpx.AsyncClient, running: Harness) -> None:
    answer = await http.get("/health", headers={"Origin": running.url})
    assert answer.json() == {"status": "ok"}
    assert answer.headers["access-control-allow-origin"] in (running.url, "*")


async def test_connection_ends_with_the_answer(running: Harness) -> None:
    """The next request on it might be for an engine, which the ASGI server knows nothing of."""
    client = await running.client()
    answer = await client.ask(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.headers["connection"] == "close"
    assert await client.rest() == b""


async def test_management_after_an_answer_and_in_pieces(running: Harness) -> None:
    client = await running.client()
    assert (await client.ask(post({"model": "a"}))).status == 200
    request = post({"model": "b"}, "/models/activate")
    await client.send(request[:30])
    await client.send(request[30:-5])
    await client.send(request[-5:])
    assert (await client.answer()).json()["active"] == "b"

"""Leases by HTTP: what a request may ask for, what waits, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from mmd.errors import LeaseRefused
from tests.gateway_peer import EngineRequest, Harness, post, until


async def test_lease_is_taken_shown_and_ended(http: httpx.AsyncClient, running: Harness) -> None:
    asked = {"vram": "10G", "gpu": 0, "name": "render", "seconds": 60, "pid": os.getpid(), "program": "blender"}
    taken = await http.post("/leases", json=asked)
    assert (taken.status_code, taken.headers["location"]) == (201, "/leases/render")
    record = taken.json()
    assert (record["name"], record["state"], record["program"], record["unloaded"]) == ("render", "held", "blender", [])
    [wish], [holder] = running.models.leases.wishes, running.models.leases.holders
    assert (wish.vram, wish.gpu, wish.now, wish.by_user) == ("10G", "0", False, False)
    assert (holder.pid, holder.pipe, holder.seconds) == (os.getpid(), None, 60)
    assert [one["name"] for one in (await http.get("/leases")).json()] == ["render"]
    assert (await http.get("/leases/render")).json()["pid"] == os.getpid()
    assert (await http.delete("/leases/render")).json()["name"] == "render"
    assert (await http.get("/leases")).json() == []
    gone = await http.delete("/leases/render")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_such_lease")


async def test_lease_names_the_program_of_a_process(http: httpx.AsyncClient, running: Harness) -> None:
    await http.post("/leases", json={"name": "a", "pid": os.getpid()})
    await http.post("/leases", json={"name": "b"})
    programs = [holder.program for holder in running.models.leases.holders]
    assert "python" in programs[0]
    assert programs[1] == "a client of the gateway"


@pytest.mark.parametrize(
    "body",
    [
        {"seconds": 0},
        {"seconds": "60"},
        {"seconds": True},
        {"pid": 0.5},
        {"pid": 2**22},
        {"name": ""},
        {"name": 7},
        {"vram": 10},
        {"now": "yes"},
        {"gpu": [0]},
        {"pid": os.getpid(), "pipe": 0},
        {"program": "x" * 300},
    ],
)
async def test_wrong_request_takes_no_lease(http: httpx.AsyncClient, running: Harness, body: dict[str, Any]) -> None:
    refused = await http.post("/leases", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "wrong_usage")
    assert running.models.leases.held == {}


async def test_lease_without_room_is_refused(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.leases.refuses = LeaseRefused("no room: the lease x has 9 GiB", hint="mmd lease end x")
    refused = await http.post("/leases", json={})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["hint"]) == (409, "lease_refused", "mmd lease end x")


@pytest.fixture
async def slow(running: Harness) -> AsyncIterator[asyncio.Event]:
    """A response of model a that ends when the event is set."""
    release = asyncio.Event()

    async def answer(received: EngineRequest) -> None:
        await release.wait()
        await received.answer(b"{}")

    running.peer("a").on["/v1/slow"] = answer
    client = await running.client()
    asking = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/slow")))
    await running.peer("a").has_received(1)
    yield release
    release.set()
    with suppress(Exception):
        await asking


async def test_lease_waits_for_the_answers_of_those_that_leave(
    http: httpx.AsyncClient, running: Harness, slow: asyncio.Event
) -> None:
    running.models.leases.unloads = ("a",)
    taking = asyncio.create_task(http.post("/leases", json={"name": "x"}))
    await asyncio.wait([taking], timeout=0.2)
    assert not taking.done()
    assert running.models.leases.held == {}
    slow.set()
    taken = await taking
    assert (taken.status_code, taken.json()["unloaded"]) == (201, ["a"])


async def test_lease_beside_a_busy_model_waits_for_nothing(
    http: httpx.AsyncClient, running: Harness, slow: asyncio.Event
) -> None:
    running.models.leases.unloads = ("b",)
    assert (await http.post("/leases", json={"name": "x"})).status_code == 201
    assert not slow.is_set()


async def test_lease_beside_all_waits_for_no_other_unload(http: httpx.AsyncClient, running: Harness) -> None:
    """It waited for the end of an answer that had nothing to do with it."""
    scheduler, slept = running.gateway.scheduler, asyncio.Event()
    sleeping = asyncio.create_task(scheduler.drain_for({"a"}, slept.wait))
    await until(lambda: "a" in scheduler.unloading)
    async with asyncio.timeout(5):
        assert (await http.post("/leases", json={"vram": "1G"})).status_code == 201
    assert not sleeping.done()
    slept.set()
    await sleeping


async def test_lease_drains_models_that_lie_in_the_way_later(http: httpx.AsyncClient, running: Harness) -> None:
    running.models.leases.needs_more = ["b"]
    running.models.leases.unloads = ("a",)
    taken = await http.post("/leases", json={"name": "x"})
    assert (taken.status_code, taken.json()["unloaded"]) == (201, ["a", "b"])
    running.models.leases.needs_more = ["c"] * 9
    assert (await http.post("/leases", json={"name": "y"})).status_code == 409


async def test_lease_of_a_client_that_has_left_is_given_up(
    http: httpx.AsyncClient, running: Harness, slow: asyncio.Event
) -> None:
    running.models.leases.unloads = ("a",)
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/leases", json={"name": "x"}, timeout=0.2)
    slow.set()
    assert (await http.post("/leases", json={"name": "y"})).status_code == 201
    assert list(running.models.leases.held) == ["y"]

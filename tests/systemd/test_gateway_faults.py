"""Losses when a process dies, stops or disconnects under a gateway at work: only what could not be kept."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.systemd.world import World, run_mmd, wait_for

_LONG = {"chunks": 2000, "chunk_seconds": 0.02}  # a response that outlasts the test's action
_CHAT = "/v1/chat/completions"


async def test_gateway_killed_in_mid_stream_leaves_engine_to_the_next(world: World, installed: str) -> None:
    world.add("a", **_LONG)
    async with _client(installed) as client:
        async with _stream(client, "a") as lines:
            await _first(lines)
            pid = world.main_pid("a")
            world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
            with pytest.raises(httpx.TransportError):  # the response does not look complete
                await _rest(lines)
        async with _stream(client, "a") as lines:
            await _first(lines)
        assert (await client.get("/status")).json()["active"] == "a"
    assert world.main_pid("a") == pid
    assert world.events("load-begin") == [("load-begin", "a")]


async def test_killed_while_requests_wait_for_their_turn(world: World, installed: str) -> None:
    """The queue is lost with it; clients send their requests again."""
    world.add("a", **_LONG)
    world.add("b")
    async with _client(installed) as client:
        async with _stream(client, "a") as lines:
            await _first(lines)
            waiting = [asyncio.create_task(_ask(client, "b")) for _ in range(5)]
            await _until_taken(installed, 6)
            world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(end, httpx.TransportError) for end in ended), ended
            with pytest.raises(httpx.TransportError):
                await _rest(lines)
        assert "b-0" in await _ask(client, "b")
    assert not world.events("overlap")


async def test_restart_under_load_loses_no_request(world: World, installed: str) -> None:
    """Requests that wait for a swap are answered before the gateway ends, and later ones by the next gateway."""
    world.add("a", chunks=5, chunk_seconds=0.01)
    world.add("b", chunks=5, chunk_seconds=0.01, load_seconds=0.5)
    stop, answers = asyncio.Event(), []

    async def load(name: str) -> None:
        async with _client(installed) as client:  # their connections are kept, and found closed
            while not stop.is_set():
                answers.append((name, await _ask(client, name)))

    async def load_from_many(name: str) -> None:
        while not stop.is_set():
            async with _client(installed) as client:
                answers.append((name, await _ask(client, name)))

    async with _client(installed) as client:
        await _ask(client, "a")
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "a", "b"):
            group.create_task(load(name))
            group.create_task(load_from_many(name))
        for _ in range(3):
            before = len(answers)
            await asyncio.to_thread(world.manager.systemctl, "restart", "mmd.service")
            await _until(lambda before=before: len(answers) > before + 10)  # type: ignore[misc]
        stop.set()
    assert {(name, text) for name, text in answers} == {
        (name, f"{name}-0 {name}-1 {name}-2 {name}-3 {name}-4 ") for name in ("a", "b")
    }


async def test_stop_answers_requests_that_wait_for_a_swap(world: World, installed: str) -> None:
    world.add("a")
    world.add("b", load_seconds=1.0)
    async with _client(installed) as client:
        await _ask(client, "a")
        waiting = [asyncio.create_task(_ask(client, "b")) for _ in range(20)]
        await _until(lambda: ("load-begin", "b") in world.events())
        await asyncio.to_thread(world.manager.systemctl, "stop", "mmd.service")
        assert ["b-0" in text for text in await asyncio.gather(*waiting)] == [True] * 20


async def test_engine_killed_in_mid_stream_sends_error_and_restarts(world: World, installed: str) -> None:
    world.add("a", **_LONG)
    async with _client(installed) as client:
        async with _stream(client, "a") as lines:
            await _first(lines)
            world.kill("a", signal.SIGKILL)
            said: list[str] = []
            with pytest.raises(httpx.TransportError):
                await _rest(lines, said)
        error = json.loads(said[-1].removeprefix("data: "))["error"]
        assert (error["code"], error["source"]) == ("engine_died", "mmd")
        async with _stream(client, "a") as lines:
            await _first(lines)
    assert world.events("load-begin") == [("load-begin", "a")] * 2


async def test_two_hundred_clients_leave_at_once(world: World, installed: str) -> None:
    """Half of the clients read a stream, half wait for another model: engine, queue and gateway drop them all."""
    world.add("a", **_LONG)
    world.add("b")
    async with _client(installed) as client:
        async with _stream(client, "a") as lines:
            await _first(lines)
        engine, gateway = world.main_pid("a"), _main_pid(world, "mmd.service")
        threads, descriptors = _threads(engine), _descriptors(gateway)
        crowd = [_Leaver(installed, name) for name in ("a", "b") for _ in range(100)]
        for leaver in crowd[:100]:
            await leaver.send()
        await asyncio.gather(*(leaver.has_answer() for leaver in crowd[:100]))
        for leaver in crowd[100:]:
            await leaver.send()
        await _until(lambda: _descriptors(gateway) >= descriptors + 300)  # two hundred clients and a hundred streams
        for leaver in crowd[100:]:
            leaver.leave()
        await _until(
            lambda: _descriptors(gateway) <= descriptors + 202
        )  # before those of the streams: otherwise it is b's turn
        for leaver in crowd[:100]:
            leaver.leave()
        # Idle connections to the engine may stay, each with its thread; those of streams that were cut may not.
        await _until(lambda: _descriptors(gateway) <= descriptors + 2 and _threads(engine) <= threads + 2)
        async with _stream(client, "a") as lines:
            await _first(lines)
        assert (await client.get("/status")).json()["active"] == "a"
    assert world.events("load-begin") == [("load-begin", "a")]  # no client was left that wanted b


async def test_install_over_a_gateway_at_work_cuts_nothing(world: World, installed: str) -> None:
    world.add("a", chunks=100, chunk_seconds=0.02)
    async with _client(installed) as client:
        async with _stream(client, "a") as lines:
            await _first(lines)
            installing = asyncio.create_task(asyncio.to_thread(run_mmd, "install"))
            assert (await _rest(lines))[-1] == "data: [DONE]"
        assert (await installing).returncode == 0
        assert "a-99" in await _ask(client, "a")
    assert world.events("load-begin") == [("load-begin", "a")]


class _Leaver:
    """A client that disconnects in the middle of a response."""

    def __init__(self, url: str, name: str) -> None:
        self._host, _, self._port = url.removeprefix("http://").partition(":")
        self._name = name
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def send(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        body = json.dumps(_body(self._name, stream=True))
        head = f"POST {_CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write((head + body).encode())
        await self._writer.drain()

    async def has_answer(self) -> None:
        async with asyncio.timeout(20):
            await self._reader.readuntil(b"data: ")

    def leave(self) -> None:
        self._writer.transport.abort()


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=40)


def _body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "hello"}]} | more


async def _ask(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post(_CHAT, json=_body(name))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@asynccontextmanager
async def _stream(client: httpx.AsyncClient, name: str) -> AsyncIterator[AsyncIterator[str]]:
    async with client.stream("POST", _CHAT, json=_body(name, stream=True)) as answer:
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def _first(lines: AsyncIterator[str]) -> None:
    """Wait for the first word of the model."""
    async for line in lines:
        if '"content": "' in line:
            return
    raise AssertionError("the stream said nothing")


async def _rest(lines: AsyncIterator[str], said: list[str] | None = None) -> list[str]:
    """Return the lines up to the end, without empty ones; also in `said`, if the stream breaks."""
    said = [] if said is None else said
    async for line in lines:
        if line:
            said.append(line)
    return said


async def _until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, condition, what="what the test waits for", seconds=30)


async def _until_taken(url: str, count: int) -> None:
    """Wait until the gateway has accepted this many connections."""
    port = f"{int(url.rpartition(':')[2]):04X}"

    def taken() -> bool:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(row[1].endswith(f":{port}") and row[3] == "01" and row[9] != "0" for row in rows) >= count

    await _until(taken)


def _main_pid(world: World, unit: str) -> int:
    return int(world.manager.systemctl("show", "--property=MainPID", "--value", unit))


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))

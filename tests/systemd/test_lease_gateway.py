"""Leases while a gateway runs: answers finish first, clients are told, and games come and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx
import pytest

from mmd.paths import config_file
from tests.fakes.gamemode import fake_gamemode
from tests.fakes.nvml import FakeGpus
from tests.systemd.test_lease import end, is_leased, lease, no_process_left, resident, seconds_until, until_back
from tests.systemd.world import World, run_mmd, wait_for

__all__ = ["no_process_left"]  # a fixture of these tests, too

T = TypeVar("T")

_HELD_SECONDS = 0.3  # in which nothing may happen


@pytest.fixture
def gpus(world: World) -> Iterator[FakeGpus]:
    yield world.add_gpus(24)
    for units in ("mmd-lease@*", "mmd-back@*"):
        world.manager.systemctl("stop", units)


@pytest.fixture
def gateway(address: str, gpus: FakeGpus, world: World) -> Iterator[httpx.Client]:
    """An installed gateway with one GPU of 24 GB, on which `chat` with 14 GB is resident."""
    settings = config_file().read_text().replace('residency = "one"', 'residency = "many"')
    config_file().write_text(settings + 'games = "yield"\n')
    world.add_sized("chat", 14, chunks=40, chunk_seconds=0.05)  # an answer takes 2 s
    assert run_mmd("install").returncode == 0
    with httpx.Client(base_url=address, timeout=60) as client:
        done = client.post("/models/activate", json={"model": "chat"})
        assert done.status_code == 200, done.text
        yield client


def body(model: str) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def test_lease_waits_for_a_running_answer(gateway: httpx.Client, world: World) -> None:
    with gateway.stream("POST", "/v1/chat/completions", json=body("chat")) as answer:
        lines = answer.iter_lines()
        next(lines)
        holder = lease("--name", "x")
        time.sleep(_HELD_SECONDS)
        assert not is_leased(world, "x")
        text = "\n".join(lines)
    assert "[DONE]" in text, "the answer is whole"
    wait_for(lambda: is_leased(world, "x"), what="leased")
    assert resident() == set()
    end(holder)
    until_back("chat")


def test_lease_unloads_the_least_recently_used(gateway: httpx.Client, world: World) -> None:
    """It went by the requests before the last swap."""
    gateway.post("/models/stop", json={"model": "chat"})
    world.add_sized("first", 6, context=512, embedding=True)
    world.add_sized("second", 6, context=512, embedding=True)
    for model in ("first", "second", "first"):
        assert gateway.post("/v1/embeddings", json={"model": model, "input": "hi"}).status_code == 200
    assert resident() == {"first", "second"}
    holder = lease("--vram", "14G", "--name", "x")
    wait_for(lambda: is_leased(world, "x"), what="leased")
    assert resident() == {"first"}
    end(holder)
    until_back("first", "second")


def test_lease_now_cuts_the_answer_and_says_why(gateway: httpx.Client, world: World) -> None:
    with gateway.stream("POST", "/v1/chat/completions", json=body("chat")) as answer:
        lines = answer.iter_lines()
        next(lines)
        holder = lease("--now", "--name", "x", "--", "sleep", "600")
        wait_for(lambda: is_leased(world, "x"), what="leased")
        text = ""
        with suppress(httpx.RemoteProtocolError):  # it is cut
            for line in lines:
                text += line
    assert "[DONE]" not in text
    assert "swapped_out" in text, text
    assert "sleep 600" in text, "it says who was let in instead"
    end(holder)
    until_back("chat")


def test_ctrl_c_gives_up_a_lease_that_waits(gateway: httpx.Client, world: World) -> None:
    with gateway.stream("POST", "/v1/chat/completions", json=body("chat")) as answer:
        lines = answer.iter_lines()
        next(lines)
        holder = lease("--name", "x")
        time.sleep(_HELD_SECONDS)
        holder.send_signal(signal.SIGINT)
        assert holder.wait(20) == 130
        assert "[DONE]" in "\n".join(lines)
    time.sleep(_HELD_SECONDS)
    assert not is_leased(world, "x")
    assert resident() == {"chat"}


def test_request_is_told_that_a_lease_has_the_memory(gateway: httpx.Client, world: World) -> None:
    holder = lease("--name", "game")
    wait_for(lambda: is_leased(world, "game"), what="leased")
    refused = gateway.post("/v1/chat/completions", json=body("chat") | {"stream": False})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "gpu_leased"), refused.text
    assert "retry-after" in refused.headers
    assert "the lease game" in error["message"]
    assert error["hint"].startswith("mmd lease end game")
    end(holder)
    until_back("chat")
    assert gateway.post("/v1/chat/completions", json=body("chat")).status_code == 200


def test_lease_by_http_outlives_the_gateway(gateway: httpx.Client, world: World) -> None:
    taken = gateway.post("/leases", json={"name": "batch", "program": "nightly batch"})
    assert (taken.status_code, taken.json()["unloaded"]) == (201, ["chat"]), taken.text
    world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
    wait_for(lambda: is_up(gateway), what="the next gateway")
    [record] = gateway.get("/leases").json()
    assert (record["name"], record["state"], record["program"], record["pid"]) == (
        "batch",
        "held",
        "nightly batch",
        None,
    )
    assert gateway.get("/status").json()["leases"] == [record]
    assert gateway.delete("/leases/batch").status_code == 200
    until_back("chat")


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_lease_by_http_ends_with_its_process_or_its_time(gateway: httpx.Client, world: World) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        record = gateway.post("/leases", json={"vram": "1G", "pid": process.pid}).json()
        assert (record["name"], record["program"], record["pid"]) == ("sleep", "sleep 600", process.pid)
        process.kill()
    assert seconds_until(lambda: not is_leased(world, "sleep")) < 1
    assert gateway.post("/leases", json={"name": "short", "seconds": 0.5, "vram": "1G"}).status_code == 201
    assert is_leased(world, "short")
    assert 0.1 < seconds_until(lambda: not is_leased(world, "short")) < 2
    assert resident() == {"chat"}, "it was in nobody's way"


def test_restored_model_answers_through_the_gateway(gateway: httpx.Client, world: World) -> None:
    done = run_mmd("lease", "--", "true")
    assert (done.returncode, done.stderr) == (0, "chat unloaded for the lease true\n")
    until_back("chat")
    answer = gateway.post("/v1/chat/completions", json=body("chat") | {"stream": False})
    assert answer.status_code == 200
    events = json.loads(run_mmd("events", "--json").stdout)
    [leased] = [one for one in events if one["outcome"] == "leased"]
    assert (leased["model"], leased["evicted"], leased["why"]) == ("lease@true", ["chat"], "true")


# --- games


@pytest.fixture
def gamemode(gateway: httpx.Client, world: World) -> Iterator[Games]:
    with Games(f"unix:path={world.manager.runtime}/bus") as games:
        yield games


class Games:
    """A fake gamemoded in a thread of its own, as the tests wait for other processes."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()

    def __enter__(self) -> Games:
        self._thread.start()
        self._gamemode = self._do(self._stack.enter_async_context(fake_gamemode(self._address)))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def register(self, pid: int) -> None:
        self._do(self._gamemode.register(pid))

    def unregister(self, pid: int) -> None:
        self._do(self._gamemode.unregister(pid))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


def test_game_gets_the_gpu_and_gives_it_back(gateway: httpx.Client, world: World, gamemode: Games) -> None:
    with subprocess.Popen(["sleep", "600"]) as game:
        gamemode.register(game.pid)
        wait_for(lambda: gateway.get("/swaps").json()[-1]["outcome"] == "leased", what="leased")
        status = gateway.get("/status").json()
        assert status["resident"] == []
        [record] = status["leases"]
        assert record["program"] == f"the game sleep (process {game.pid})"
        refused = gateway.post("/v1/chat/completions", json=body("chat") | {"stream": False})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "gpu_leased")
        assert "the lease games" in error["message"]
        world.manager.systemctl("restart", "mmd.service")
        wait_for(lambda: is_up(gateway), what="the next gateway")
        assert is_leased(world, "games")
        gamemode.unregister(game.pid)
        game.kill()
    wait_for(lambda: not is_leased(world, "games"), what="released")
    until_back("chat")


def test_next_gateway_notices_that_a_game_is_over(gateway: httpx.Client, world: World, gamemode: Games) -> None:
    gamemode.register(os.getpid())
    wait_for(lambda: gateway.get("/swaps").json()[-1]["outcome"] == "leased", what="leased")
    world.manager.systemctl("stop", "mmd.service")
    gamemode.unregister(os.getpid())
    assert is_leased(world, "games")
    assert is_up(gateway), "its socket starts it"
    until_back("chat")


def test_folder_of_a_lease_is_gone_with_it(gateway: httpx.Client, world: World) -> None:
    gateway.post("/leases", json={"name": "x", "vram": "1G"})
    gateway.delete("/leases/x")
    left = [entry.name for entry in Path(world.manager.runtime / "mmd").iterdir() if "lease@" in entry.name]
    assert [name for name in left if not name.endswith(("~size", "~gate"))] == []

"""`mmd activate` while a gateway runs: the gateway carries it out, and lets its responses finish."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress

import httpx

from mmd.control.install.presence import Presence, running_version
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for


async def _mmd(*words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run_mmd, *words)


def _chat(model: str, **more: object) -> str:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]} | more)


async def test_swap_by_hand_lets_an_answer_finish(world: World, installed: str) -> None:
    world.add("a", chunks=20, chunk_seconds=0.1)
    world.add("b")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        async with client.stream("POST", "/v1/chat/completions", content=_chat("a", stream=True)) as answer:
            pieces = answer.aiter_bytes()
            await anext(pieces)
            swapping = asyncio.create_task(_mmd("activate", "b", "--json"))
            rest = b"".join([piece async for piece in pieces])
        assert rest.endswith(b"data: [DONE]\n\n")
        done = await swapping
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["model_ids"], made["evicted"], made["why"]) == (["b"], ["a"], "not loaded")
    assert made["phases"]["drain"] > 0.001  # only the gateway knows of it
    again = await _mmd("activate", "b", "--json")
    assert json.loads(again.stdout)["why"] == "it is resident"


async def test_sleep_by_hand_lets_an_answer_finish_and_stop_does_not(world: World, installed: str) -> None:
    world.add("a")
    for words, finishes in (
        (("sleep",), True),  # llama.cpp cannot sleep
        (("sleep", "a"), True),
        (("stop", "a"), False),
        (("sleep", "a", "--now"), False),
    ):
        world.behave("a", chunks=15 if finishes else 200, chunk_seconds=0.1)
        answer, done = await _while_it_streams(installed, *words)
        assert (done.returncode, done.stderr) == (0, "a stopped\n")
        assert answer.endswith(b"data: [DONE]\n\n") is finishes, words
    nobody = [await _mmd("sleep"), await _mmd("sleep", "--now")]
    assert [done.stderr for done in nobody] == ["No model is loaded.\n"] * 2
    wrong = [await _mmd("sleep", "a", "--level", "7"), await _mmd("sleep", "a", "--level", "7", "--now")]
    assert [done.returncode for done in wrong] == [2, 2]
    assert wrong[0].stderr == wrong[1].stderr


async def _while_it_streams(gateway: str, *words: str) -> tuple[bytes, subprocess.CompletedProcess[str]]:
    async with (
        httpx.AsyncClient(base_url=gateway, timeout=30) as client,
        client.stream("POST", "/v1/chat/completions", content=_chat("a", stream=True)) as answer,
    ):
        pieces = answer.aiter_bytes()
        read = await anext(pieces)
        done = asyncio.create_task(_mmd(*words))
        with suppress(httpx.RemoteProtocolError):  # it is cut short
            async for piece in pieces:
                read += piece
    return read, await done


async def test_swap_that_fails_is_told_as_ever(world: World, installed: str) -> None:
    world.add("a")
    world.behave("a", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    async with httpx.AsyncClient(base_url=installed) as client:
        await client.get("/health")
    told = [await _mmd("activate", "a"), await _mmd("activate", "a", "--now")]
    assert [done.returncode for done in told] == [6, 6]
    assert all("gronk" in done.stderr and len(done.stderr.splitlines()) == 2 for done in told)
    unknown = [await _mmd("activate", "x"), await _mmd("activate", "x", "--now")]
    assert [done.returncode for done in unknown] == [3, 3]
    assert unknown[0].stderr == unknown[1].stderr


def test_gateway_is_not_started_to_end_a_model_or_to_look(world: World, installed: str) -> None:
    for words in (("status",), ("sleep",), ("stop",)):
        assert run_mmd(*words).returncode == 0
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"


def test_gateway_of_another_version_is_not_asked(world: World, installed: str) -> None:
    world.add("a")
    presence = Presence()
    presence.announce("0.0.1")
    assert running_version() == "0.0.1"
    assert run_mmd("activate", "a").returncode == 0
    presence.withdraw()
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"


async def test_gateway_killed_meanwhile_leaves_the_swap_to_the_command(world: World, installed: str) -> None:
    world.add("a", load_seconds=1.0)
    async with httpx.AsyncClient(base_url=installed) as client:
        await client.get("/health")
    swapping = asyncio.create_task(_mmd("activate", "a"))
    await asyncio.to_thread(wait_for, lambda: ("load-begin", "a") in world.events(), what="a's load")
    world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
    done = await swapping
    assert done.returncode == 0, done.stderr
    assert world.events("load-begin") == [("load-begin", "a")]


def test_interrupted_command_leaves_the_swap_to_go_on(world: World, installed: str) -> None:
    world.add("a", load_seconds=3.0)
    httpx.get(f"{installed}/health")
    command = [sys.executable, "-m", "mmd", "activate", "a"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: ("load-begin", "a") in world.events(), what="a's load")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "keeps loading in the background" in said
    assert ("ready", "a") not in world.events()  # it did not wait
    wait_for(lambda: httpx.get(f"{installed}/status").json()["active"] == "a", what="a is resident")

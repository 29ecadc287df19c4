"""The gateway as an installed service: socket-activated, over the real user manager."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import Any

import httpx
import pytest

from mmd.control.lifecycle.controller import Controller
from mmd.paths import config_dir
from tests.systemd.world import World, run_mmd, wait_for


async def test_first_connection_starts_it(world: World, installed: str) -> None:
    world.add("a")
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"
    async with httpx.AsyncClient(base_url=installed) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["a"]
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "active"


async def test_request_swaps_its_model_in(world: World, installed: str) -> None:
    world.add("a", "b")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        for name in ("a", "b", "a"):
            assert name in (await _ask(client, model=name)).text
            status = (await client.get("/status")).json()
            assert (status["active"], [one["id"] for one in status["resident"]]) == (name, [name])
        assert "a" in (await _ask(client)).text  # without a name: the active model
    assert not world.events("overlap")


async def test_swap_by_the_cli_is_seen(world: World, installed: str) -> None:
    world.add("a", "b")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client, Controller() as mmd:
        await _ask(client, model="a")
        await mmd.activate("b")
        assert "b" in (await _ask(client)).text
        await mmd.stop()
        async with asyncio.timeout(10):
            while (await client.get("/models")).json()[1]["status"] != "absent":
                pass  # its view follows systemd's signals, a moment later
        answer = await _ask(client)
        assert (answer.status_code, answer.json()["error"]["source"]) == (404, "mmd")
        assert "a" in (await _ask(client, model="a")).text


async def test_model_that_fails_is_an_error_with_its_cause(world: World, installed: str) -> None:
    world.add("a", "b")
    world.behave("b", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        await _ask(client, model="a")
        answer = await _ask(client, model="b")
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert "gronk" in error["message"]
        assert error["engine_lines"][-1] == "error: unknown model architecture: 'gronk'"
        refused = await _ask(client, model="b")  # at once: the failed model backs off
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "try_later")
        assert int(refused.headers["retry-after"]) <= 10
        assert (await client.get("/status")).json()["active"] == "a"


async def test_engine_killed_is_back_for_the_next_request(world: World, installed: str) -> None:
    world.add("a")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        await _ask(client, model="a")
        world.kill("a", signal.SIGKILL)
        assert "a" in (await _ask(client, model="a")).text


async def test_swap_outlives_a_killed_gateway_and_the_next_adopts_it(world: World, installed: str) -> None:
    world.add("a")
    world.add("b", load_seconds=1.0)
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        await _ask(client, model="a")
        cut = asyncio.create_task(_ask(client, model="b"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "b") in world.events(), what="b's load")
        world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
        with pytest.raises(httpx.TransportError):
            await cut
        assert "b" in (await _ask(client, model="b")).text
        assert (await client.get("/status")).json()["active"] == "b"
    assert world.events("load-begin") == [("load-begin", "a"), ("load-begin", "b")]


async def test_stopped_it_loses_no_model(world: World, installed: str) -> None:
    world.add("a")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        await _ask(client, model="a")
        pid = world.main_pid("a")
        world.manager.systemctl("stop", "mmd.service")
        assert "a" in (await _ask(client, model="a")).text
    assert world.main_pid("a") == pid


def test_install_over_itself_and_remove_leave_nothing(world: World, installed: str) -> None:
    assert run_mmd("install").returncode == 0
    assert world.manager.systemctl("is-active", "mmd.socket").strip() == "active"
    assert run_mmd("install", "--remove").returncode == 0
    assert not list((config_dir().parent / "systemd/user").rglob("mmd*"))
    assert world.manager.systemctl("is-active", "mmd.socket").strip() in ("inactive", "unknown")


def test_install_on_a_taken_port_says_so(world: World, installed: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        world.settings(f'[gateway]\nlisten = "127.0.0.1:{port}"\nembedding_listen = ""\n')
        failed = run_mmd("install")
        assert failed.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr
        assert f"sport = :{port}" in failed.stderr


def test_install_on_a_public_address_is_refused(world: World, installed: str) -> None:
    world.settings('[gateway]\nlisten = "0.0.0.0:8000"\n')
    failed = run_mmd("install")
    assert failed.returncode == 2
    assert "can be reached from other machines" in failed.stderr


def test_gateway_refused_an_address_does_not_report_it(world: World) -> None:
    world.settings('[gateway]\nembedding_listen = ""\n')
    failed = run_mmd("gateway", "--listen", "0.0.0.0:0")
    assert failed.returncode == 2
    assert "can be reached from other machines" in failed.stderr
    assert "listens on" not in failed.stderr


async def test_install_on_a_public_address_is_for_those_with_a_key(world: World, installed: str) -> None:
    port = installed.rpartition(":")[2]
    world.settings(f'[gateway]\nlisten = "0.0.0.0:{port}"\nembedding_listen = ""\n')
    key = run_mmd("key", "add", "a").stdout.strip()
    done = run_mmd("install")
    assert done.returncode == 0, done.stderr
    assert f"curl http://127.0.0.1:{port}/v1/models -H 'Authorization: Bearer KEY'" in done.stderr
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    assert run_mmd("key", "remove", "a").returncode == 2


def test_gateway_on_a_taken_port_is_two_lines(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failed = run_mmd("gateway", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert failed.returncode == 1
    assert "is taken" in failed.stderr
    assert len(failed.stderr.splitlines()) == 2


async def test_broken_settings_do_not_take_the_socket_down(world: World, installed: str) -> None:
    good = (config_dir() / "mmd.toml").read_text()
    (config_dir() / "mmd.toml").write_text("[gateway\n")
    async with httpx.AsyncClient(base_url=installed, timeout=2) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/health")
        (config_dir() / "mmd.toml").write_text(good)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await client.get("/health")).status_code == 200
                    return
                except httpx.TransportError:
                    continue


async def _ask(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "hello"}]
    return await client.post("/v1/chat/completions", content=json.dumps(more | {"messages": messages}))

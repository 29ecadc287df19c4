"""The gateway's three listeners as units: what starts it where, and what happens if an address is taken."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.control.install.presence import running_version
from mmd.paths import gateway_socket, user_unit_dir
from mmd.registry.store import Registry
from mmd.settings import read_settings
from tests.systemd.conftest import free_port
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for
from tests.tiny_models import tiny_embedding_gguf


def _embedding_url() -> str:
    return f"http://{read_settings().gateway.embedding_listen}"


def _add_embedding_model(world: World, name: str) -> None:
    path = world.folder / f"{name}.gguf"
    tiny_embedding_gguf(path, name=name)
    Registry().add(path, id=name)


async def _ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", content=json.dumps(body | {"input": "hello"}))


async def test_embedding_address_means_the_embedding_model(world: World, installed: str) -> None:
    world.add("a")
    async with httpx.AsyncClient(base_url=_embedding_url(), timeout=30) as client:
        answer = await _ask(client)  # the first connection of all, and not to mmd.socket
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "mmd add" in answer.json()["error"]["hint"]
        _add_embedding_model(world, "e")
        _add_embedding_model(world, "f")
        assert "e" in (await _ask(client)).text
        assert (await client.get("/status")).json()["active"] == "e"
        assert "f" in (await _ask(client, model="f")).text
        assert "f" in (await _ask(client)).text  # it is resident
        async with httpx.AsyncClient(base_url=installed, timeout=30) as main:
            assert "a" in (await _ask(main, model="a")).text
            assert "a" in (await _ask(main)).text
        assert "e" in (await _ask(client)).text


async def test_unix_socket_is_private_and_tells_if_a_gateway_runs(world: World, installed: str) -> None:
    assert gateway_socket().stat().st_mode & 0o777 == 0o600
    assert running_version() is None
    async with _over_the_unix_socket() as client:
        assert (await client.get("/health")).status_code == 200
        assert running_version() is not None
    world.manager.systemctl("stop", "mmd.service")
    assert running_version() is None
    assert gateway_socket().exists()


def _over_the_unix_socket() -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(gateway_socket()))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)


@contextmanager
def _taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def test_taken_embedding_port_is_said_and_gone_without(world: World, installed: str) -> None:
    listen = installed.removeprefix("http://")
    with _taken_port() as port:
        world.settings(f'[gateway]\nlisten = "{listen}"\nembedding_listen = "127.0.0.1:{port}"\n')
        done = run_mmd("install")
        assert done.returncode == 0
        assert "mmd-embedding.socket could not bind" in done.stderr
        async with httpx.AsyncClient(base_url=installed) as client:
            assert (await client.get("/health")).status_code == 200
    # The next start of the gateway tries again.
    world.manager.systemctl("stop", "mmd.service")
    async with httpx.AsyncClient(base_url=installed) as client:
        assert (await client.get("/health")).status_code == 200
    assert world.manager.systemctl("is-active", "mmd-embedding.socket").strip() == "active"
    async with httpx.AsyncClient(base_url=_embedding_url()) as client:
        assert (await client.get("/health")).status_code == 200


def test_embedding_address_can_be_switched_off(world: World, installed: str) -> None:
    listen = installed.removeprefix("http://")
    assert (user_unit_dir() / "mmd-embedding.socket").exists()
    world.settings(f'[gateway]\nlisten = "{listen}"\nembedding_listen = ""\n')
    assert run_mmd("install").returncode == 0
    assert not list(user_unit_dir().rglob("mmd-embedding.socket"))
    assert world.manager.systemctl("is-active", "mmd-embedding.socket").strip() == "inactive"


async def test_refused_address_leaves_the_old_one_as_it_was(world: World, installed: str) -> None:
    old = read_settings().gateway.embedding_listen
    before = _files()
    with _taken_port() as port:
        world.settings(f'[gateway]\nlisten = "127.0.0.1:{port}"\nembedding_listen = ""\n')
        failed = run_mmd("install")
    assert failed.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr
    assert _files() == before
    for address in (installed, f"http://{old}"):
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.get("/health")).status_code == 200


def test_refused_first_installation_leaves_nothing(world: World, installed: str) -> None:
    assert run_mmd("install", "--remove").returncode == 0
    with _taken_port() as port:
        world.settings(f'[gateway]\nlisten = "127.0.0.1:{port}"\nembedding_listen = ""\n')
        assert run_mmd("install").returncode == 1
    assert _files() == {}


def _files() -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in user_unit_dir().rglob("*mmd*") if file.is_file()}


def test_foreground_gateway_names_the_service_on_its_address(world: World, installed: str) -> None:
    """`ss` would show systemd."""
    port = installed.rpartition(":")[2]
    refused = run_mmd("gateway")
    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken: mmd.socket listens there, for mmd.service" in refused.stderr
    stop = "systemctl --user stop 'mmd*.socket' mmd.service"
    assert stop in refused.stderr
    world.manager.systemctl("stop", "mmd*.socket", "mmd.service")
    with _foreground(world, int(port)):
        wait_for(lambda: running_version() is not None, what="that it serves")


def test_foreground_gateway_says_how_to_find_the_owner_of_a_port(world: World) -> None:
    with _taken_port() as port:
        refused = run_mmd("gateway", "--listen", f"127.0.0.1:{port}")
    assert f"port {port} of 127.0.0.1 is taken\n  → ss -ltnp" in refused.stderr


# --- a gateway that starts beside loaded models


async def test_gateway_runs_beside_a_model_that_was_activated_by_hand(world: World, installed: str) -> None:
    """It used to start with the first request: until then memory and suspend were not watched."""
    world.add("a")
    assert running_version() is None
    assert (await asyncio.to_thread(run_mmd, "activate", "a")).returncode == 0
    await asyncio.to_thread(wait_for, lambda: running_version() is not None, what="the gateway runs")


async def test_gateway_that_was_stopped_by_hand_stays_down(world: World, installed: str) -> None:
    world.add("a")
    world.manager.systemctl("stop", "mmd*.socket")
    assert (await asyncio.to_thread(run_mmd, "activate", "a")).returncode == 0
    assert world.manager.systemctl("list-jobs").startswith("No jobs")
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"


@pytest.mark.timeout(150)  # two gateways start one after the other, for 10 s each on a busy machine
async def test_gateway_in_the_foreground_says_where_it_listens(world: World) -> None:
    main, embedding = free_port(), free_port()
    world.settings(f'[gateway]\nembedding_listen = "127.0.0.1:{embedding}"\n')
    with _foreground(world, main) as said:
        async with _over_the_unix_socket() as client:
            assert (await client.get("/health")).status_code == 200
        expected = f"The gateway listens on 127.0.0.1:{main}, 127.0.0.1:{embedding}, {gateway_socket()}\n"
        assert said.read_text() == expected
        with _foreground(world, free_port()) as also_said:  # the first one has the rest
            lines = also_said.read_text().splitlines()
            assert len(lines) == 3
            assert f"port {embedding} of 127.0.0.1 is taken" in lines[0]
            assert "belongs to another gateway" in lines[1]
        assert gateway_socket().exists()
    assert not gateway_socket().exists()


@contextmanager
def _foreground(world: World, port: int) -> Iterator[Path]:
    """Run `mmd gateway` while it listens on a port; yield its output."""
    said = world.folder / f"said-{port}"
    command = [sys.executable, "-m", "mmd", "gateway", "--listen", f"127.0.0.1:{port}"]
    with said.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, cwd=REPOSITORY, env=os.environ)
    try:
        wait_for(lambda: "listens on" in said.read_text(), what="the gateway listens")
        yield said
    finally:
        process.terminate()
        assert process.wait(40) == 0


async def test_gateway_has_few_privileges_and_probes_the_gpu_with_all(world: World, installed: str) -> None:
    async with httpx.AsyncClient(base_url=installed) as client:
        assert (await client.get("/health")).status_code == 200
    pid = world.manager.systemctl("show", "--property=MainPID", "--value", "mmd.service").strip()
    status = _process_status(pid)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    before = world.manager.systemctl("show", "--property=ExecStartPreEx", "--value", "mmd.service")
    assert "nvidia-modprobe" in before and "flags=ignore-failure privileged" in before


def _process_status(pid: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("name", ["mmd.socket", "mmd-embedding.socket", "mmd-local.socket"])
def test_stopped_gateway_is_started_by_any_of_its_sockets(world: World, installed: str, name: str) -> None:
    assert world.manager.systemctl("is-active", name).strip() == "active"
    assert "mmd.service" in world.manager.systemctl("show", "--property=Triggers", "--value", name)

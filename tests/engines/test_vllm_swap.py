"""Two vLLM models and one of llama.cpp, in every order: real units, over fake engines and over real ones."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.control.lifecycle.controller import Controller
from mmd.paths import config_file, engine_socket
from mmd.registry.store import Registry
from tests.fakes.engine import install_fake_llama_server
from tests.fakes.vllm import install_fake_vllm
from tests.tiny_models import tiny_folder, tiny_gguf
from tests.user_manager import UserManager

pytestmark = [pytest.mark.timeout(400), pytest.mark.manager]

SLEEPERS = {"a", "b"}
# Every swap between three models, once each.
ORDER = ("a", "b", "c", "a", "c", "b", "a")
# Nothing is compiled, and little memory is taken: the defaults are for dedicated machines.
SMALL = ["-O0", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "4"]


@dataclass(frozen=True, slots=True)
class Engines:
    vllm: Path
    llama_server: Path


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.engine)])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Engines:
    if request.param == "fake":
        return Engines(install_fake_vllm(tmp_path / "venv"), install_fake_llama_server(tmp_path))
    vllm = os.environ.get("MMD_TEST_VLLM")
    llama_server = os.environ.get("MMD_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if not vllm or not llama_server:
        pytest.skip("no vLLM in MMD_TEST_VLLM, or no llama-server on PATH nor in MMD_TEST_LLAMA_SERVER")
    return Engines(Path(vllm), Path(llama_server))


@pytest.fixture
def events(engines: Engines, systemd: UserManager, tmp_path: Path) -> Path:
    """Models a and b for vLLM and c for llama.cpp, and the file to which fake engines write their events."""
    for seed, name in enumerate(sorted(SLEEPERS)):
        Registry().add(tiny_folder(tmp_path / name, seed=seed), id=name)
    Registry().add(tiny_gguf(tmp_path / "c.gguf", name="c"), id="c")
    config_file().parent.mkdir(parents=True)
    models = "".join(f"[models.{name}]\narguments = {json.dumps(SMALL)}\n" for name in sorted(SLEEPERS))
    places = f'vllm = "{engines.vllm}"\nllama-server = "{engines.llama_server}"\n'
    config_file().write_text(f'[gpu]\nresidency = "one"\n[engines]\n{places}{models}')
    events = tmp_path / "events"
    systemd.systemctl(
        "set-environment", f"MMD_FAKE_EVENTS={events}", f"MMD_FAKE_GPU={tmp_path / 'gpu'}", "OMP_NUM_THREADS=1"
    )
    return events


async def test_every_order_leaves_exactly_one_awake(events: Path) -> None:
    started: set[str] = set()
    async with Controller() as mmd:
        for name in ORDER:
            await mmd.activate(name)
            started.add(name)
            assert (await _ask(name))["model"] == name
            status = await asyncio.to_thread(_status)
            assert (status["active"], [one["id"] for one in status["resident"]], status["failed"]) == (name, [name], [])
            assert _sleeping(status) == dict.fromkeys((started & SLEEPERS) - {name}, 1), status
            for other in started - {name}:
                await _assert_not_awake(other)
    assert "overlap" not in await asyncio.to_thread(_said_by_fakes, events)


async def _ask(model_id: str) -> Any:
    messages = [{"role": "user", "content": "hello"}]
    async with _client(model_id) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 4})
        return answer.raise_for_status().json()


async def _assert_not_awake(model_id: str) -> None:
    """Wait until it reports that it sleeps, or until it has stopped and its socket is removed."""
    if model_id not in SLEEPERS:
        assert not engine_socket(model_id).exists()
        return
    async with _client(model_id) as client:
        assert (await client.get("/is_sleeping")).json() == {"is_sleeping": True}


def _said_by_fakes(events: Path) -> str:
    return events.read_text() if events.exists() else ""


def _sleeping(status: Mapping[str, Any]) -> dict[str, int]:
    """Return the sleeping models and their levels; all of them hold RAM."""
    assert all(sleeper["ram_bytes"] > 0 for sleeper in status["sleeping"])
    return {sleeper["id"]: sleeper["level"] for sleeper in status["sleeping"]}


def _status() -> Any:
    words = (sys.executable, "-m", "mmd", "status", "--json")
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout)


def _client(model_id: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(engine_socket(model_id)))
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60)

"""The same swaps with every engine, the fake one included: real units, models and responses."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.control.lifecycle.controller import Controller
from mmd.errors import EngineFailed
from mmd.paths import config_file, engine_socket
from mmd.registry.store import Registry
from tests.fakes.engine import install_fake_llama_server
from tests.tiny_models import tiny_embedding_gguf, tiny_gguf
from tests.user_manager import UserManager

pytestmark = [pytest.mark.timeout(120), pytest.mark.manager]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("embedded", marks=pytest.mark.engine),
        pytest.param("llama-server", marks=pytest.mark.engine),
    ]
)
def engine(request: pytest.FixtureRequest, systemd: UserManager, tmp_path: Path) -> str:
    """The name of the engine that serves the models of this test."""
    place = None
    if request.param == "fake":
        place = str(install_fake_llama_server(tmp_path))
    elif request.param == "llama-server":
        place = os.environ.get("MMD_TEST_LLAMA_SERVER") or shutil.which("llama-server")
        if place is None:
            pytest.skip("no llama-server on PATH, nor in MMD_TEST_LLAMA_SERVER")
    else:
        pytest.importorskip("xllamacpp")
    config_file().parent.mkdir(parents=True)
    name = "embedded" if place is None else "llama-server"
    text = "".join(f'[models.{model}]\nengine = "{name}"\n' for model in ("a", "b", "e", "broken"))
    config_file().write_text(text + (f'[engines]\nllama-server = "{place}"\n' if place else ""))
    return name


@pytest.fixture
def one_at_a_time(engine: str) -> str:
    """The engine, on a machine whose mmd.toml allows one resident model: these tiny ones fit beside each other."""
    with config_file().open("a") as file:
        file.write('[gpu]\nresidency = "one"\n')
    return engine


async def test_models_beside_each_other_answer_without_a_swap(engine: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Registry().add(tiny_gguf(tmp_path / f"{name}.gguf", name=name), id=name)
    async with Controller() as mmd:
        for name in ("a", "b"):
            assert (await mmd.activate(name)).evicted == ()
        assert (await mmd.status()).resident_ids == ("a", "b")
        for name in ("a", "b", "a", "b"):
            assert (await mmd.activate(name)).was_resident
            answer = await _post(name, "/v1/completions", prompt="hello", max_tokens=2)
            assert answer["model"] == name


async def test_two_models_in_turn_and_their_answers(one_at_a_time: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Registry().add(tiny_gguf(tmp_path / f"{name}.gguf", name=name), id=name)
    async with Controller() as mmd:
        for name in ("a", "b", "a", "b"):
            await mmd.activate(name)
            assert (await mmd.status()).resident_ids == (name,)
            answer = await _post(name, "/v1/chat/completions", messages=[{"role": "user", "content": "hello"}])
            assert answer["choices"][0]["finish_reason"] in ("length", "stop")
            assert answer["model"] == name
        assert (await mmd.planner.launch("a")).engine == one_at_a_time


async def test_embedding_model_is_served_as_one(engine: str, tmp_path: Path) -> None:
    Registry().add(tiny_embedding_gguf(tmp_path / "e.gguf"), id="e")
    async with Controller() as mmd:
        await mmd.activate("e")
        # 1,300 tokens of one byte each: more than the engine's own default batch of 512, which would be an error.
        answer = await _post("e", "/v1/embeddings", input="word " * 260)
        vector = answer["data"][0]["embedding"]
        assert math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-3)


async def test_broken_file_names_its_cause_and_the_previous_is_back(one_at_a_time: str, tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf", name="a"), id="a")
    broken = tiny_gguf(tmp_path / "broken.gguf", name="broken")
    Registry().add(broken, id="broken")
    content = broken.read_bytes()
    broken.write_bytes(b"GUFF" + content[4:])  # damaged after it was added
    async with Controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(EngineFailed, match=r"status 1.*(magic|GUFF|load).*a is resident again"):
            await mmd.activate("broken")
        assert (await mmd.status()).active == "a"


async def test_generated_command_is_accepted_by_the_engine_itself(engine: str, tmp_path: Path) -> None:
    """`mmd show` prints the command that runs, and the engine's own parser accepts each of its flags."""
    Registry().add(tiny_gguf(tmp_path / "a.gguf", name="a"), id="a")
    shown = await asyncio.to_thread(_run, sys.executable, "-m", "mmd", "show", "a", "--json")
    argv = json.loads(shown)["launch"]["argv"]
    async with Controller() as mmd:
        await mmd.activate("a")
    unit = await asyncio.to_thread(_run, "systemctl", "--user", "show", "--property=ExecStart", "mmd-model@a.service")
    assert " ".join(argv) in unit


async def _post(model_id: str, path: str, **body: Any) -> Any:
    transport = httpx.AsyncHTTPTransport(uds=str(engine_socket(model_id)))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as client:
        return (await client.post(path, json={"max_tokens": 8} | body)).raise_for_status().json()


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

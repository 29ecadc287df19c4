"""The names that clients use, while mmd.toml changes under a running gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.paths import config_dir
from mmd.registry.store import Registry
from tests.systemd.world import World, run_mmd
from tests.tiny_models import tiny_gguf


@pytest.fixture
def laid_down(installed: str) -> Iterator[Callable[[str], None]]:
    """Write the contents of mmd.toml beside the address of the gateway."""
    file = config_dir() / "mmd.toml"
    address = file.read_text()

    def write(text: str) -> None:
        file.write_text(address + text)

    yield write
    write("")


async def test_alias_is_known_at_once_and_restarts_nothing(
    world: World, installed: str, laid_down: Callable[[str], None]
) -> None:
    world.add("a")
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        assert (await _ask(client, "a"))["model"] == "a"
        pid = world.main_pid("a")
        assert (await _ask(client, "org/name"))["error"]["code"] == "model_not_found"
        laid_down('[models.a]\naliases = ["org/name", "gpt-4o"]\n')
        for name in ("org/name", "gpt-4o"):
            assert (await _ask(client, name))["model"] == "a"
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == "a"
        (listed,) = (await client.get("/v1/models")).json()["data"]
        assert listed["aliases"] == ["org/name", "gpt-4o"]
        assert run_mmd("activate", "gpt-4o").returncode == 0
        assert world.main_pid("a") == pid
        laid_down('[models.a]\naliases = ["gpt-4o"]\n')
        assert (await _ask(client, "org/name"))["error"]["code"] == "model_not_found"


async def test_damaged_settings_take_no_alias_away(
    world: World, installed: str, laid_down: Callable[[str], None]
) -> None:
    world.add("a")
    laid_down('[models.a]\naliases = ["gpt-4o"]\n')
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        assert (await _ask(client, "gpt-4o"))["model"] == "a"
        laid_down('[models.a]\naliases = ["gpt-4o"\n')
        assert (await _ask(client, "gpt-4o"))["model"] == "a"


async def test_repository_names_its_model_until_there_are_two(world: World, installed: str) -> None:
    cache = world.folder / "models--org--name" / "snapshots" / "1"
    async with httpx.AsyncClient(base_url=installed, timeout=30) as client:
        _register(cache / "small.gguf", "small")
        assert (await _ask(client, "org/name"))["model"] == "small"
        _register(cache / "large.gguf", "large")
        error = (await _ask(client, "org/name"))["error"]
        assert error["code"] == "model_not_found"
        assert "large, small" in error["message"]


def _register(path: Path, model_id: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Registry().add(tiny_gguf(path, name=model_id), id=model_id)


async def _ask(client: httpx.AsyncClient, name: str) -> Any:
    messages = [{"role": "user", "content": "hello"}]
    return (await client.post("/v1/chat/completions", json={"model": name, "messages": messages})).json()

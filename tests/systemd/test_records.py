"""The records of a gateway over real units, in every state of a model, match the API's document."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from mmd.errors import EngineFailed
from tests.openapi_records import differences
from tests.systemd.serving import running, serving
from tests.systemd.world import World

PATHS = ("/health", "/status", "/models", "/resources", "/resources/history", "/queue", "/swaps", "/v1/models")


async def test_records_are_as_described(world: World) -> None:
    """One model is resident, one sleeps, one has failed and one is starting."""
    world.add("resident", "broken")
    world.add("sleeper", can_sleep=True)
    world.add("slow", load_seconds=30)
    world.behave("broken", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    async with serving(world) as at, running(at.watch.run()):
        at.gateway.observe()
        async with httpx.AsyncClient(base_url=at.address, timeout=30) as http, world.controller() as outside:
            await outside.activate("sleeper")
            await outside.activate("resident")
            assert (await http.post("/v1/completions", json={"model": "resident", "prompt": "hi"})).status_code == 200
            await compare(http)
            with pytest.raises(EngineFailed):
                await outside.activate("broken")
            assert (await http.get("/swaps")).json()[-1]["engine_lines"][-1].endswith("'gronk'")
            starting = asyncio.create_task(outside.activate("slow"))
            async with asyncio.timeout(20):
                while not (status := (await http.get("/status")).json())["starting"]:
                    pass
            assert [each["id"] for each in status["sleeping"]] == ["sleeper"]
            await compare(http)
            await outside.stop("slow")
            await asyncio.gather(starting, return_exceptions=True)
            await compare(http)


async def compare(http: httpx.AsyncClient) -> None:
    for path in PATHS:
        assert differences(path, (await http.get(path)).json()) == [], path

"""/metrics of a gateway over real units: tokens over swaps, and every metric of the dashboard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests import alerts, dashboard
from tests.prometheus import Scrape
from tests.systemd.serving import running, serving
from tests.systemd.world import World


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway over `llama`, which is stopped in a swap, and `vllm`, which sleeps."""
    world.add("llama")
    world.add("vllm", can_sleep=True)
    async with serving(world) as at, running(at.watch.run()):
        at.gateway.observe()
        async with httpx.AsyncClient(base_url=at.address, timeout=30) as http:
            yield http


async def scrape(http: httpx.AsyncClient) -> Scrape:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


async def ask(http: httpx.AsyncClient, model: str) -> None:
    question: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    assert (await http.post("/v1/chat/completions", json=question)).status_code == 200


async def test_tokens_are_counted_over_swaps(http: httpx.AsyncClient) -> None:
    """One engine ends with its counters and the other sleeps with them; a response has three tokens."""
    for model in ("llama", "vllm", "llama", "vllm"):
        await ask(http, model)
    page = await scrape(http)
    assert page.value("mmd_tokens_total", model="llama", direction="out") == 6
    assert page.value("mmd_tokens_total", model="llama", direction="in") == 2
    slept = page.value("mmd_tokens_total", model="vllm", direction="out")
    assert slept is not None
    assert slept >= 6  # and those of its wake checks
    assert page.value("mmd_requests_total", model="vllm", path="/v1/chat/completions", status="2xx") == 2


async def test_swaps_are_counted_and_told(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/events") as stream:
        lines = stream.aiter_lines()
        asking = asyncio.gather(ask(http, "llama"), ask(http, "vllm"))
        told = 0
        async with asyncio.timeout(20):
            async for line in lines:
                told += line == "event: swap"
                if told == 2:
                    break
        await asking
    page = await scrape(http)
    for model in ("llama", "vllm"):
        assert page.value("mmd_swaps_total", model=model, outcome="resident") == 1
        assert page.value("mmd_swap_phase_seconds_count", model=model, phase="load") == 1
    swaps = (await http.get("/swaps")).json()
    assert sorted(event["model"] for event in swaps) == ["llama", "vllm"]


async def test_a_swap_by_the_cli_is_told(http: httpx.AsyncClient, world: World) -> None:
    async with http.stream("GET", "/events") as stream, world.controller() as outside:
        lines = stream.aiter_lines()
        await outside.activate("llama")
        async with asyncio.timeout(20):
            while await anext(lines) != "event: swap":
                pass
            await anext(lines)  # its id
            data = await anext(lines)
            assert json.loads(data.removeprefix("data: "))["model"] == "llama"


async def test_dashboard_and_alerts_ask_for_what_there_is(http: httpx.AsyncClient) -> None:
    labels: dict[str, set[str]] = {}
    for model in ("llama", "vllm", "llama"):
        await ask(http, model)
        page = await scrape(http)
        for name, found in page.labels.items():
            labels.setdefault(name, set()).update(found)
    page = await scrape(http)
    families = page.families.keys()
    labels["up"] = set()  # Prometheus's own
    for query in (*dashboard.queries(), *alerts.queries()):
        for name, used in dashboard.selected(query).items():
            assert name in labels or name.removesuffix("_total") in families, f"nobody tells {name}: {query}"
            assert used <= labels.get(name, used), f"{name} has {labels[name]}: {query}"
    assert dashboard.legend_labels() <= set().union(*labels.values()) | {"uuid", "name", "lease"}

"""Memory use over the last hour, and the newest swaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mmd.control.state import swap_events
from mmd.control.state.memory_use import Memory, Resources
from mmd.control.state.swap_events import SwapEvent
from mmd.control.state.swap_log import SwapLog
from mmd.gateway.http.limits import Limits
from mmd.gateway.observe.memory_history import MemoryHistory
from tests.gateway_peer import Harness, MemoryModels, harness


@pytest.fixture
async def running() -> AsyncIterator[Harness]:
    async with harness("a", limits=Limits(history_seconds=0.01)) as running:
        yield running


async def test_memory_is_sampled_from_the_start(http: httpx.AsyncClient) -> None:
    while len((history := (await http.get("/resources/history")).json())["samples"]) < 3:
        pass
    assert history["interval_seconds"] == 0.01
    first, second = history["samples"][:2]
    assert first.keys() == {"at", "vram_used_bytes", "vram_total_bytes", "ram_used_bytes", "ram_total_bytes"}
    assert (first["ram_used_bytes"], first["ram_total_bytes"]) == (1, 2)
    at = datetime.fromisoformat(first["at"])
    assert timedelta() <= datetime.now(UTC) - at < timedelta(minutes=1)
    assert first["at"] <= second["at"]


async def test_one_hour_of_samples_is_kept() -> None:
    history = MemoryHistory(MemoryModels({}), interval_seconds=900)
    for used in range(6):
        memory = Memory.of(used, 9)
        history.add(Resources(memory, memory, ()))
    assert [sample.vram_used_bytes for sample in history.record().samples] == [2, 3, 4, 5]


async def test_newest_swaps_come_last(http: httpx.AsyncClient) -> None:
    assert (await http.get("/swaps")).json() == []
    for number in range(25):
        swap_events.keep(swap(f"m{number}"))
    assert len((await http.get("/swaps")).json()) == 20
    two = (await http.get("/swaps?limit=2")).json()
    assert [event["model"] for event in two] == ["m23", "m24"]
    assert two[1]["phases"] == {"load": 1.0}


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "10000", "many", "", "²"])
async def test_limit_is_a_number_in_bounds(http: httpx.AsyncClient, limit: str) -> None:
    answer = await http.get("/swaps", params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["source"]) == (400, "mmd")


def test_log_reports_each_swap_once() -> None:
    swap_events.keep(swap("before"))
    log = SwapLog()
    assert log.news() == []
    swap_events.keep(swap("a"))
    swap_events.keep(swap("b"))
    assert [event.model for event in log.news()] == ["a", "b"]
    assert log.news() == []
    swap_events.keep(swap("b"))  # unchanged
    swap_events.keep(swap("c"))
    assert [event.model for event in log.news()] == ["c"]


def test_log_continues_after_rotation() -> None:
    log = SwapLog()
    swap_events.keep(swap("a"))
    assert [event.model for event in log.news()] == ["a"]
    swap_events.events_file().replace(swap_events.events_file().with_suffix(".1.jsonl"))
    swap_events.keep(swap("b"))
    assert [event.model for event in log.news()] == ["b"]


def swap(model: str) -> SwapEvent:
    return SwapEvent(
        at="2026-11-21T10:00:00.000+00:00",
        model=model,
        evicted=(),
        outcome="resident",
        why="not loaded",
        cause="",
        seconds=1.0,
        phases={"load": 1.0},
    )

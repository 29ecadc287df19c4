"""/metrics: the counters, and how Prometheus reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mmd.codec import convert
from mmd.control.state import swap_events
from mmd.control.state.status import Status
from mmd.control.state.swap_events import SwapEvent
from mmd.errors import EngineFailed
from mmd.gateway.observe.scrape import EngineMetrics, EngineProcess, Family, Sample, with_model_label
from mmd.gateway.observe.text_format import gauge
from mmd.gateway.observe.tokens import TokenTotals
from tests.gateway_peer import EngineRequest, Harness, harness, post, until
from tests.page import scene
from tests.page.scene import GIB
from tests.prometheus import Scrape

GATEWAY = EngineProcess(pid=1, started_ticks=1000)
CHAT = {"model": "a", "path": "/v1/chat/completions"}


@pytest.fixture
async def running() -> AsyncIterator[Harness]:
    async with harness("a", "b") as running:
        for name in ("a", "b"):
            running.peer(name).on["/metrics"] = no_metrics
        yield running


async def no_metrics(received: EngineRequest) -> None:
    await received.answer(b"", status="404 Not Found")


async def scrape(running: Harness) -> Scrape:
    async with httpx.AsyncClient(base_url=running.url) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(response.text)


async def test_requests_are_counted_by_model_path_and_status(running: Harness) -> None:
    async def teapot(received: EngineRequest) -> None:
        await received.answer(b"{}", status="418 I'm a teapot")

    running.peer("a").on["/v1/brew/4711"] = teapot
    client = await running.client()
    for _ in range(2):
        assert (await client.ask(post({"model": "a"}))).status == 200
    assert (await client.ask(post({"model": "a"}, "/v1/brew/4711"))).status == 418
    assert (await client.ask(post({"model": "nobody"}))).status == 404
    page = await scrape(running)
    assert page.value("mmd_requests_total", **CHAT, status="2xx") == 2
    assert page.value("mmd_requests_total", model="a", path="other", status="4xx") == 1
    assert page.value("mmd_requests_total", model="", path="/v1/chat/completions", status="4xx") == 1
    assert page.value("mmd_request_duration_seconds_count", model="a") == 3
    assert page.value("mmd_time_to_first_byte_seconds_count", model="a") == 3


async def test_times_run_from_request_to_first_byte_and_to_end(running: Harness) -> None:
    first, last = asyncio.Event(), asyncio.Event()

    async def slow(received: EngineRequest) -> None:
        await first.wait()
        await received.begin_stream(b"data: 1\n\n")
        await last.wait()
        await received.send(b"0\r\n\r\n")

    running.peer("a").on["/v1/chat/completions"] = slow
    client = await running.client()
    await client.send(post({"model": "a"}))
    loop = asyncio.get_running_loop()
    loop.call_later(0.06, first.set)
    await client.head()
    await client.chunk()
    loop.call_later(0.06, last.set)
    await client.chunk()
    page = await scrape(running)
    first_byte = page.value("mmd_time_to_first_byte_seconds_sum", model="a")
    whole = page.value("mmd_request_duration_seconds_sum", model="a")
    assert first_byte is not None
    assert whole is not None
    assert 0.05 <= first_byte <= whole - 0.05
    assert page.value("mmd_time_to_first_byte_seconds_bucket", model="a", le="0.05") == 0
    assert page.value("mmd_time_to_first_byte_seconds_bucket", model="a", le="+Inf") == 1


async def test_incomplete_responses_are_counted_by_reason(running: Harness) -> None:
    async def dies(received: EngineRequest) -> None:
        await received.begin_stream(b"data: 1\n\n")
        received.die()

    async def hangs(received: EngineRequest) -> None:
        await received.gone()

    running.peer("a").on |= {"/v1/completions": dies, "/v1/chat/completions": hangs}
    client = await running.client()
    await client.send(post({"model": "a"}, "/v1/completions"))
    await client.rest()
    client = await running.client()
    await client.send(post({"model": "a"}))
    await running.peer("a").has_received(2)
    assert (await scrape(running)).value("mmd_requests_in_flight", model="a") == 1
    client.disconnect()
    await until(lambda: running.gateway.requests_at_engines == 0)
    page = await scrape(running)
    assert page.value("mmd_requests_total", model="a", path="/v1/completions", status="engine_died") == 1
    assert page.value("mmd_requests_total", **CHAT, status="client_left") == 1
    assert page.value("mmd_requests_in_flight", model="a") is None


async def test_waiting_requests_are_counted(running: Harness) -> None:
    running.models.held["b"] = asyncio.Event()
    clients = [await running.client() for _ in range(2)]
    for client in clients:
        await client.send(post({"model": "b"}))
    await until(lambda: "activate b" in running.models.log)
    assert (await scrape(running)).value("mmd_queue_depth", model="b") == 2
    clients[1].disconnect()
    await until(lambda: running.gateway.scheduler.queue().turns[0].waiting == 1)
    running.models.held["b"].set()
    await clients[0].answer()
    page = await scrape(running)
    assert page.value("mmd_queue_depth", model="b") is None
    assert page.value("mmd_queue_wait_seconds_count", model="b", outcome="served") == 1
    assert page.value("mmd_queue_wait_seconds_count", model="b", outcome="left") == 1


async def test_waits_are_counted_by_result(running: Harness) -> None:
    running.models.failing["b"] = EngineFailed("b exited", hint="mmd logs b")
    client = await running.client()
    for _ in range(2):
        assert (await client.ask(post({"model": "b"}))).status == 503
    page = await scrape(running)
    assert page.value("mmd_queue_wait_seconds_count", model="b", outcome="failed") == 1
    assert page.value("mmd_queue_wait_seconds_count", model="b", outcome="refused") == 1


async def test_swaps_and_their_phases(running: Harness) -> None:
    about: dict[str, Any] = {"at": "2026-11-21T10:00:00.000+00:00", "evicted": ("a",), "why": "not loaded", "cause": ""}
    with running.gateway.feed.subscribe() as told:
        swap_events.keep(
            SwapEvent(model="b", outcome="resident", seconds=3.0, phases={"load": 2.5, "drain": 0.1}, **about)
        )
        swap_events.keep(SwapEvent(model="b", outcome="failed", seconds=1.0, phases={}, **about))
        running.models.swapped_away("a")
        heard = aiter(told)
        while getattr((await anext(heard)).data, "outcome", "") != "failed":
            pass
    page = await scrape(running)
    assert page.value("mmd_swaps_total", model="b", outcome="resident") == 1
    assert page.value("mmd_swaps_total", model="b", outcome="failed") == 1
    assert page.value("mmd_evictions_total", model="a", unloaded_for="b") == 2
    assert page.value("mmd_swap_duration_seconds_sum", model="b") == 4.0
    assert page.value("mmd_swap_phase_seconds_sum", model="b", phase="load") == 2.5
    assert page.value("mmd_swap_phase_seconds_bucket", model="b", phase="drain", le="0.1") == 1


async def test_metrics_of_models_memory_and_process(running: Harness) -> None:
    page = await scrape(running)
    assert page.value("mmd_model_state", model="a", state="active") == 1
    assert page.value("mmd_models", state="absent") == 1
    assert (page.value("mmd_ram_used_bytes"), page.value("mmd_ram_total_bytes")) == (1, 2)
    started, memory = page.value("process_start_time_seconds"), page.value("process_resident_memory_bytes")
    assert started is not None
    assert memory is not None
    assert 1.7e9 < started < 4e9
    assert memory > 10 << 20


async def test_memory_of_models_leases_and_devices(running: Harness) -> None:
    running.models.shown = convert(scene.status(), Status)
    page = await scrape(running)
    qwen, awq = "qwen3-8b-q4_k_m", "qwen3-4b-awq"
    assert page.value("mmd_resident_models") == 2
    assert page.value("mmd_model_memory_held_bytes", model=qwen, device="GPU-1") == 8 * GIB
    assert page.value("mmd_model_memory_held_bytes", model=awq, device="GPU-1") == 1.5 * GIB
    assert page.value("mmd_model_memory_used_bytes", model=qwen, device="GPU-1") == 7 * GIB
    assert page.value("mmd_model_memory_used_bytes", model="nomic-embed-text-v1.5-f16", device="GPU-1") is None
    assert page.value("mmd_lease_memory_held_bytes", lease="blender", device="GPU-2") == 4 * GIB
    device = {"device": "GPU-1", "name": "NVIDIA GeForce RTX 4070"}
    sizes = {what: page.value(f"mmd_device_memory_{what}_bytes", **device) for what in ("total", "held", "free")}
    assert sizes == {"total": 12 * GIB, "held": 10.5 * GIB, "free": int(2.2 * GIB)}
    assert page.value("mmd_device_memory_others_bytes", device="ram", name="RAM") == int(11.4 * GIB)


# -- metrics of engines


async def test_engine_metrics_get_a_model_label(running: Harness) -> None:
    async def tells(received: EngineRequest) -> None:
        await received.answer(
            b"# HELP python_gc_objects_collected_total Objects\n"
            b"python_gc_objects_collected_total 1.0\n"
            b"# HELP vllm:kv_cache_usage_perc 1 means 100 percent\n"
            b"# TYPE vllm:kv_cache_usage_perc gauge\n"
            b'vllm:kv_cache_usage_perc{engine="0",model_name="x \\" y"} 0.25\n'
            b"vllm:kv_cache_usage_perc{broken 0.25\n"
            b"vllm:num_requests_running nonsense\n"
            b"vllm:num_requests_waiting NaN\n"
            b"vllm:generation_tokens_total NaN\n"
            b'own:model{model="its own",a_model=",model=\\""} 1\n'
        )

    running.peer("a").on["/metrics"] = tells
    page = await scrape(running)
    assert page.value("vllm:kv_cache_usage_perc", model="a", engine="0", model_name='x " y') == 0.25
    assert not {"python_gc_objects_collected", "vllm:num_requests_running"} & page.families.keys()
    assert "vllm:num_requests_waiting" in page.families
    assert page.value("own:model", model="a", exported_model="its own", a_model=',model="') == 1
    assert page.value("mmd_tokens_total", model="a", direction="out") == 0
    assert page.value("mmd_engine_scrape_errors_total", model="a") is None


async def test_sleeping_engine_is_not_read(running: Harness) -> None:
    """A sleeping engine may not respond."""
    running.models.swapped_away("a")
    await scrape(running)
    assert not running.peer("a").requests
    assert not running.peer("b").requests


async def test_slow_engine_metrics_time_out_and_are_counted(running: Harness) -> None:
    async def hangs(received: EngineRequest) -> None:
        await received.gone()

    running.peer("a").on["/metrics"] = hangs
    assert (await scrape(running)).value("mmd_engine_scrape_errors_total", model="a") == 1


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_engine_without_metrics_is_counted(running: Harness, answer: bytes) -> None:
    async def answers(received: EngineRequest) -> None:
        await received.send(answer)

    running.peer("a").on["/metrics"] = answers
    assert (await scrape(running)).value("mmd_engine_scrape_errors_total", model="a") == 1


async def test_engine_metrics_are_read_before_a_swap(running: Harness) -> None:
    """Its counts since the last read end with it."""
    total = 7

    async def tells(received: EngineRequest) -> None:
        await received.answer(f"llamacpp:prompt_tokens_total {total}\n".encode())

    running.peer("a").on["/metrics"] = tells
    await scrape(running)
    client = await running.client()
    await client.ask(post({"model": "a"}))
    total = 12
    running.models.held["b"] = asyncio.Event()
    await client.send(post({"model": "b"}))
    await running.peer("a").has_received(3)
    running.models.held["b"].set()
    await client.answer()
    assert (await scrape(running)).value("mmd_tokens_total", model="a", direction="in") == 5


def test_pages_of_several_engines_are_merged() -> None:
    family = Family(["# HELP x:a A", "# TYPE x:a gauge"], [Sample("x:a", 'engine="0"', "1")])
    bare = Family([], [Sample("x:a", "", "2"), Sample("x:a_sum", "", "3")])
    empty = Family(["# HELP x:b B"])
    pages = {
        "m": EngineMetrics(GATEWAY, {"x:a": bare}),
        "n": EngineMetrics(GATEWAY, {"x:a": family, "x:b": empty}),
    }
    assert "".join(with_model_label(pages)).splitlines() == [
        *("# HELP x:a A", "# TYPE x:a gauge"),
        *('x:a{model="m"} 2', 'x:a_sum{model="m"} 3', 'x:a{model="n",engine="0"} 1'),
    ]


def tokens(pid: int, total: int, *, started_ticks: int = 2000) -> EngineMetrics:
    name = "llamacpp:tokens_predicted_total"
    return EngineMetrics(EngineProcess(pid, started_ticks), {name: Family([], [Sample(name, "", str(total))])})


@pytest.mark.parametrize(
    ("pages", "counted"),
    [
        ([tokens(5, 10)], 10),
        ([tokens(5, 10), tokens(5, 10), tokens(5, 14)], 14),
        ([tokens(5, 10), tokens(6, 3)], 13),  # restarted
        ([tokens(5, 10), tokens(6, 30)], 40),  # and counted further than the previous process
        ([tokens(5, 10, started_ticks=500)], 0),  # it and its counts are older than this gateway
        ([tokens(5, 10, started_ticks=500), tokens(5, 12, started_ticks=500)], 2),
        ([tokens(5, 10), tokens(5, 8), tokens(5, 12)], 12),  # read concurrently; the responses arrive in another order
    ],
)
def test_token_totals_continue_over_engine_restarts(pages: list[EngineMetrics], counted: int) -> None:
    total = TokenTotals(since=GATEWAY)
    for page in pages:
        total.note("m", page)
    assert total.counts["m", "out"] == counted


def test_cached_prompt_tokens_count() -> None:
    """vLLM counts them, and so does "usage"."""
    names = ("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total")
    page = EngineMetrics(EngineProcess(5, 2000), {name: Family([], [Sample(name, "", "3")]) for name in names})
    total = TokenTotals(since=GATEWAY)
    total.note("m", page)
    assert total.counts["m", "in"] == 6


def test_labels_are_escaped() -> None:
    page = Scrape("".join(gauge("x", "X.", ("model",), [(('a"b\\c\nd',), 1)])))
    assert page.value("x", model='a"b\\c\nd') == 1

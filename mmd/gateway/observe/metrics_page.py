"""GET /metrics: what Prometheus is told. The dashboard in contrib/grafana uses the names and labels."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmd import __version__
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.scrape import EngineProcess, with_model_label
from mmd.gateway.observe.text_format import counter, gauge, histogram
from mmd.gateway.observe.tokens import EngineScraper
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_NOT_RUNNING = "absent"


class MetricsPage:
    def __init__(
        self, models: Models, scheduler: Scheduler, feed: Feed, counters: Counters, scraper: EngineScraper
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._feed = feed
        self._counters = counters
        self._scraper = scraper

    async def page(self) -> str:
        """Raises ManagerUnreachable."""
        status, models = await self._models.status(), await self._models.models()
        resources = await self._models.resources()
        pages = await self._scraper.read(record["id"] for record in models)
        return "".join(
            (*self._gateway(), *_models(status, models), *_memory(resources), *_process(), *with_model_label(pages))
        )

    def _gateway(self) -> Iterator[str]:
        counters = self._counters
        counters.flush()
        yield from gauge("mmd_build_info", "Which mmd this is.", ("version",), [((__version__,), 1)])
        yield from counter(
            "mmd_requests_total",
            "Requests by how they ended: a status, client_left, engine_died or suspended.",
            ("model", "path", "status"),
            counters.requests.items(),
        )
        yield from histogram(
            "mmd_request_duration_seconds",
            "From the whole request to the end of its engine's answer.",
            ("model",),
            counters.answer_seconds,
        )
        yield from histogram(
            "mmd_time_to_first_byte_seconds",
            "From the whole request to the first byte of its engine's answer.",
            ("model",),
            counters.first_byte_seconds,
        )
        yield from counter(
            "mmd_tokens_total",
            "Tokens of prompts (in) and of answers (out), as the engines count them.",
            ("model", "direction"),
            self._scraper.tokens.counts.items(),
        )
        yield from self._queue()
        yield from counter("mmd_swaps_total", "Swaps, whoever made them.", ("model", "outcome"), counters.swaps.items())
        yield from histogram(
            "mmd_swap_duration_seconds", "Whole swaps, without the drain.", ("model",), counters.swap_seconds
        )
        yield from histogram(
            "mmd_swap_phase_seconds",
            "Parts of swaps; vram_free is a part of release, canary of wake.",
            ("model", "phase"),
            counters.phase_seconds,
        )
        yield from counter(
            "mmd_engine_scrape_errors_total",
            "Times an engine that is awake did not give its own metrics.",
            ("model",),
            self._scraper.errors.items(),
        )
        yield from gauge("mmd_listeners", "Clients of /events and /ws.", (), [((), self._feed.listener_count)])

    def _queue(self) -> Iterator[str]:
        queue = self._scheduler.queue()
        in_flight = {(each["model"],): each["requests"] for each in queue["in_flight"]}
        depth = {(turn["model"],): turn["waiting"] for turn in queue["turns"]}
        text = "Requests that engines are answering."
        yield from gauge("mmd_requests_in_flight", text, ("model",), in_flight.items())
        yield from gauge("mmd_queue_depth", "Requests that wait for their model.", ("model",), depth.items())
        yield from histogram(
            "mmd_queue_wait_seconds",
            "How long requests have waited for their model, by what became of them.",
            ("model", "outcome"),
            self._counters.wait_seconds,
        )


def _models(status: Mapping[str, Any], models: list[dict[str, Any]]) -> Iterator[str]:
    running = {(record["id"], record["status"]): 1 for record in models if record["status"] != _NOT_RUNNING}
    counts = Counter(record["status"] for record in models)
    asleep = {(sleeper["id"],): sleeper["ram_bytes"] for sleeper in status.get("sleeping", ())}
    yield from gauge(
        "mmd_model_state",
        "1 for the state of each model that has a unit: active, resident, sleeping, starting or failed.",
        ("model", "state"),
        running.items(),
    )
    yield from gauge(
        "mmd_models", "Registered models by state.", ("state",), [((state,), count) for state, count in counts.items()]
    )
    yield from gauge(
        "mmd_model_asleep_ram_bytes", "What a sleeping model's unit holds in RAM.", ("model",), asleep.items()
    )


def _memory(resources: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("vram", "ram"):
        for what in ("used", "total"):
            text = f"{kind.upper()} of the machine, {what}."
            yield from gauge(f"mmd_{kind}_{what}_bytes", text, (), [((), resources[kind][f"{what}_bytes"])])
    for what in ("used", "total"):
        by_gpu = {(gpu["uuid"], gpu["name"]): gpu[f"{what}_bytes"] for gpu in resources["gpus"]}
        yield from gauge(f"mmd_gpu_memory_{what}_bytes", f"VRAM by GPU, {what}.", ("uuid", "name"), by_gpu.items())


def _process() -> Iterator[str]:
    """Of the gateway, by the names that Prometheus's own libraries give."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = Path("/proc/self/statm").read_text("ascii").split()
    started = EngineProcess.of(os.getpid()).started_ticks / os.sysconf("SC_CLK_TCK")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    yield from counter(
        "process_cpu_seconds_total",
        "CPU time of the gateway, user and system.",
        (),
        [((), usage.ru_utime + usage.ru_stime)],
    )
    for name, text, value in (
        ("process_resident_memory_bytes", "Memory of the gateway.", int(pages[1]) * resource.getpagesize()),
        ("process_virtual_memory_bytes", "Address space of the gateway.", int(pages[0]) * resource.getpagesize()),
        ("process_open_fds", "Open descriptors of the gateway.", len(list(Path("/proc/self/fd").iterdir()))),
        ("process_start_time_seconds", "When the gateway started, since the epoch.", booted + started),
    ):
        yield from gauge(name, text, (), [((), value)])

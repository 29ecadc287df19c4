"""GET /metrics: the page for Prometheus. contrib/grafana has a dashboard for its metrics, contrib/prometheus alerts."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmd import __version__
from mmd.control.state.devices import Bytes, DeviceUse
from mmd.control.state.memory_use import Resources
from mmd.control.state.model_info import ModelInfo
from mmd.control.state.status import Status
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.scrape import EngineProcess, with_model_label
from mmd.gateway.observe.text_format import counter, gauge, histogram
from mmd.gateway.observe.tokens import EngineScraper
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_NOT_RUNNING = "absent"


class MetricsPage:
    """Assembles the page from the gateway's counters, the models' state and the engines' own metrics."""

    def __init__(
        self, models: Models, scheduler: Scheduler, feed: Feed, counters: Counters, scraper: EngineScraper
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._feed = feed
        self._counters = counters
        self._scraper = scraper

    async def page(self) -> str:
        """Return the page's text. Raises ManagerUnreachable."""
        status, models = await self._models.status(), await self._models.models()
        resources = await self._models.resources()
        pages = await self._scraper.read(model.id for model in models)
        return "".join(
            (
                *self._gateway(),
                *_models(status, models),
                *_holders(status),
                *_devices(status),
                *_memory(resources),
                *_process(),
                *with_model_label(pages),
            )
        )

    def _gateway(self) -> Iterator[str]:
        counters = self._counters
        counters.flush()
        yield from gauge("mmd_build_info", "Version of mmd.", ("version",), [((__version__,), 1)])
        yield from counter(
            "mmd_requests_total",
            "Requests by result: a status class, client_left, engine_died, suspended or swapped_out.",
            ("model", "path", "status"),
            counters.requests.items(),
        )
        yield from histogram(
            "mmd_request_duration_seconds",
            "From the complete request to the end of the engine's response.",
            ("model",),
            counters.response_seconds,
        )
        yield from histogram(
            "mmd_time_to_first_byte_seconds",
            "From the complete request to the first byte of the engine's response.",
            ("model",),
            counters.first_byte_seconds,
        )
        yield from counter(
            "mmd_tokens_total",
            "Tokens of prompts (in) and of responses (out), as counted by the engines.",
            ("model", "direction"),
            self._scraper.tokens.counts.items(),
        )
        yield from self._queue()
        text = "Swaps, made by the gateway or by any other process."
        yield from counter("mmd_swaps_total", text, ("model", "outcome"), counters.swaps.items())
        text = "Models that swaps unloaded, and the models that they were unloaded for."
        yield from counter("mmd_evictions_total", text, ("model", "unloaded_for"), counters.evictions.items())
        text = "Whole swaps, without the time to drain running responses."
        yield from histogram("mmd_swap_duration_seconds", text, ("model",), counters.swap_seconds)
        yield from histogram(
            "mmd_swap_phase_seconds",
            "Phases of swaps; vram_free is part of release, canary of wake.",
            ("model", "phase"),
            counters.phase_seconds,
        )
        yield from counter(
            "mmd_engine_scrape_errors_total",
            "Failed reads of the metrics of an engine that is awake.",
            ("model",),
            self._scraper.errors.items(),
        )
        yield from gauge("mmd_listeners", "Clients of /events and /ws.", (), [((), self._feed.listener_count)])

    def _queue(self) -> Iterator[str]:
        queue = self._scheduler.queue()
        in_flight = {(each.model,): each.requests for each in queue.in_flight}
        depth = {(turn.model,): turn.waiting for turn in queue.turns}
        text = "Requests that engines are working on."
        yield from gauge("mmd_requests_in_flight", text, ("model",), in_flight.items())
        yield from gauge("mmd_queue_depth", "Requests that are waiting for their model.", ("model",), depth.items())
        yield from histogram(
            "mmd_queue_wait_seconds",
            "How long requests waited for their model, by how the wait ended.",
            ("model", "outcome"),
            self._counters.wait_seconds,
        )


def _models(status: Status, models: Sequence[ModelInfo]) -> Iterator[str]:
    running = {(model.id, model.status): 1 for model in models if model.status != _NOT_RUNNING}
    counts = Counter(model.status for model in models)
    asleep = {(sleeper.id,): sleeper.ram_bytes for sleeper in status.sleeping}
    yield from gauge(
        "mmd_model_state",
        "1 for the state of each model that has a unit: active, resident, sleeping, starting, stranded or failed.",
        ("model", "state"),
        running.items(),
    )
    yield from gauge(
        "mmd_models", "Registered models by state.", ("state",), [((state,), count) for state, count in counts.items()]
    )
    yield from gauge("mmd_model_asleep_ram_bytes", "RAM of a sleeping model's unit.", ("model",), asleep.items())


def _holders(status: Status) -> Iterator[str]:
    """Yield what models and leases hold of each device."""
    yield from gauge("mmd_resident_models", "Models that answer requests.", (), [((), len(status.resident))])
    loaded: list[tuple[str, Bytes]] = [(one.id, one.devices) for one in status.resident]
    loaded += [(one.id, one.devices) for one in status.starting]
    loaded += [(one.id, one.devices) for one in status.sleeping]
    loaded += [(one.id, one.devices) for one in status.stranded]
    held = {(model_id, device): size for model_id, devices in loaded for device, size in devices.items()}
    used = {(one.id, device): size for one in status.resident for device, size in one.used.items()}
    leased = {(one.name, device): size for one in status.leases for device, size in one.devices.items()}
    labels = ("model", "device")
    text = "Memory that a model holds of a device, whether it uses it or not."
    yield from gauge("mmd_model_memory_held_bytes", text, labels, held.items())
    text = "Memory of a GPU that a resident model uses, if the driver reports it."
    yield from gauge("mmd_model_memory_used_bytes", text, labels, used.items())
    text = "Memory of a device that a lease keeps for its program."
    yield from gauge("mmd_lease_memory_held_bytes", text, ("lease", "device"), leased.items())


def _devices(status: Status) -> Iterator[str]:
    def by_device(size: Callable[[DeviceUse], int]) -> list[tuple[tuple[str, str], int]]:
        return [((one.id, one.name), size(one)) for one in status.devices]

    for what, text, size in _DEVICE_GAUGES:
        name = f"mmd_device_memory_{what}_bytes"
        yield from gauge(name, f"Memory of a GPU or of the machine (ram): {text}.", ("device", "name"), by_device(size))


_DEVICE_GAUGES: tuple[tuple[str, str, Callable[[DeviceUse], int]], ...] = (
    ("total", "all of it", lambda one: one.total_bytes),
    ("capacity", "what models and leases may hold", lambda one: one.capacity_bytes),
    ("held", "what models and leases hold", lambda one: one.held_bytes),
    ("mmd", "what models and leases use", lambda one: one.mmd_bytes),
    ("others", "what other programs use", lambda one: one.others_bytes),
    ("free", "what is free", lambda one: one.free_bytes),
)


def _memory(resources: Resources) -> Iterator[str]:
    for kind, memory in (("vram", resources.vram), ("ram", resources.ram)):
        for what, size_bytes in (("used", memory.used_bytes), ("total", memory.total_bytes)):
            text = f"{kind.upper()} of the machine, {what}."
            yield from gauge(f"mmd_{kind}_{what}_bytes", text, (), [((), size_bytes)])
    used = {(gpu.uuid, gpu.name): gpu.used_bytes for gpu in resources.gpus}
    total = {(gpu.uuid, gpu.name): gpu.total_bytes for gpu in resources.gpus}
    for what, by_gpu in (("used", used), ("total", total)):
        yield from gauge(f"mmd_gpu_memory_{what}_bytes", f"VRAM by GPU, {what}.", ("uuid", "name"), by_gpu.items())


def _process() -> Iterator[str]:
    """Metrics of the gateway's process, with the names that Prometheus's client libraries use."""
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

"""What lies beside each other needs no swap: requests for several models, with one resident per GPU and with many."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.paths import config_file
from mmd.registry.store import Registry
from tests.bench.client import ask
from tests.bench.measure import Row
from tests.bench.stack import Upstream, chat_body, running_gateway, write_settings
from tests.fakes.nvml import FakeGpus
from tests.well_known import llama_of

_ALTERNATING = 1000
_ALTERNATING_ONE_AT_A_TIME = 100  # each costs a swap
_STREAMS = 1000
_CLIENTS = 32

# The mixed trace: ten minutes, twenty times as fast. Seconds are those of the trace.
_FASTER = 20
_TRACE_SECONDS = 600
_MEAN_GAP_SECONDS = 1.5
_SEED = 1


@dataclass(frozen=True)
class _Model:
    name: str
    size_gib: float
    is_light: bool = False
    share: float = 1.0  # of the requests
    load_seconds: float = 8.0
    answer_seconds: tuple[float, float] = (1.0, 8.0)


_CHAT = _Model("chat", 14, share=5)
_OTHER_CHAT = _Model("other", 14, share=1)
_EMBEDDER = _Model("embed", 1, is_light=True, share=4, load_seconds=2.0, answer_seconds=(0.1, 0.4))
_RERANKER = _Model("rerank", 1.5, is_light=True, share=2, load_seconds=2.0, answer_seconds=(0.1, 0.4))


@dataclass(frozen=True)
class _Request:
    model: str
    after_seconds: float
    answer_ms: int


def measure(folder: Path) -> list[Row]:
    upstream = Upstream.install(folder)
    models = (_CHAT, _OTHER_CHAT, _EMBEDDER, _RERANKER)
    for model in models:
        path = llama_of(model.size_gib, embedding=model.is_light).write(folder / f"{model.name}.gguf")
        Registry().add(path, id=model.name)
        path.with_name(f"{path.name}.load").write_text(str(model.load_seconds / _FASTER))
    with _gpus(folder, 24):
        rows = [
            *_alternating(upstream, "one", ("chat", "embed"), _ALTERNATING_ONE_AT_A_TIME, "one 24 GB GPU"),
            *_alternating(upstream, "many", ("chat", "embed"), _ALTERNATING, "one 24 GB GPU", goal="0"),
            *_cut(),
            *_trace(upstream, models),
        ]
    with _gpus(folder, 24, 24):
        rows += _alternating(upstream, "many", ("chat", "other"), _ALTERNATING, "two of 24 GB", goal="0")
    return rows


@contextmanager
def _gpus(folder: Path, *sizes_gib: float) -> Iterator[None]:
    gpus = FakeGpus(folder / "nvml", sizes_gib)
    before = {name: os.environ.get(name) for name in gpus.environment}
    os.environ.update(gpus.environment)
    variables = [f"{name}={value}" for name, value in gpus.environment.items()]
    subprocess.run(("systemctl", "--user", "set-environment", *variables), check=True)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        gpus.close()


def _use(residency: str, **gateway: int) -> None:
    """Set the rule of residency, and the [gateway] table, for gateways that start from now on."""
    engines = config_file().read_text().partition("\n[")[0].rstrip()
    table = "".join(f"{name} = {value}\n" for name, value in gateway.items())
    write_settings(f'{engines}\n[gpu]\nresidency = "{residency}"\n' + (f"[gateway]\n{table}" if table else ""))


# -- requests in turns


def _alternating(
    upstream: Upstream, residency: str, names: Sequence[str], requests: int, where: str, *, goal: str = ""
) -> list[Row]:
    _use(residency)
    with running_gateway() as gateway:
        asyncio.run(_in_turns(gateway.port, names, len(names)))  # both have been loaded
        before = upstream.starts()
        began = time.perf_counter()
        asyncio.run(_in_turns(gateway.port, names, requests))
        seconds = time.perf_counter() - began
    swaps = upstream.starts() - before
    asyncio.run(_stop())
    what = f"{requests} requests for {' and '.join(names)} in turns, {where}, residency = {residency}"
    return [Row(f"swaps: {what}", "", [swaps], goal), Row(f"a request: {what}", "ms", [seconds * 1000 / requests])]


async def _in_turns(port: int, names: Sequence[str], requests: int) -> None:
    for name in itertools.islice(itertools.cycle(names), requests):
        answer = await ask(port, chat_body(name), path=_path_of(name))
        if answer.status != 200:
            raise RuntimeError(answer.content.decode())


def _path_of(name: str) -> str:
    return "/v1/embeddings" if name == "embed" else "/v1/rerank" if name == "rerank" else "/v1/chat/completions"


async def _stop() -> None:
    async with Controller() as mmd:
        await mmd.stop()


# -- streams that last while other models are asked for


def _cut() -> list[Row]:
    """Stream from two models that do not fit beside each other, at mmd's defaults; count the streams that are cut."""
    _use("many")
    with running_gateway() as gateway:
        cut = asyncio.run(_streams(gateway.port))
    asyncio.run(_stop())
    return [Row(f"cut: {_STREAMS} streams of two models that swap, {_CLIENTS} clients, defaults", "", [cut], "0")]


async def _streams(port: int) -> int:
    draw = random.Random(_SEED)
    bodies = [
        chat_body(draw.choice(("chat", "other")), stream=True, x_chunks=draw.randint(20, 200), x_interval_us=5000)
        for _ in range(_STREAMS)
    ]
    waiting = asyncio.Semaphore(_CLIENTS)

    async def is_cut(body: bytes) -> bool:
        async with waiting:
            answer = await ask(port, body)
        return answer.status != 200 or b"data: [DONE]" not in answer.content

    return sum(await asyncio.gather(*map(is_cut, bodies)))


# -- the mixed trace


def _trace(upstream: Upstream, models: Sequence[_Model]) -> list[Row]:
    requests = _drawn(models)
    means, rows = {}, []
    for residency in ("one", "many"):
        # Whole seconds only: no slice instead of 2 s, which is a tenth of a second here.
        _use(residency, max_wait_seconds=60 // _FASTER, min_residency_seconds=0)
        before = upstream.starts()
        with running_gateway() as gateway:
            waits = asyncio.run(_served(gateway.port, requests))
        asyncio.run(_stop())
        means[residency] = statistics.mean(waits) * _FASTER
        what = f"{len(requests)} requests of a ten-minute trace, residency = {residency}"
        rows += [
            Row(f"loads: {what}", "", [upstream.starts() - before]),
            Row(f"wait, seconds of the trace: {what}", "s", [wait * _FASTER for wait in waits]),
            Row(f"mean wait: {what}", "s", [means[residency]]),
        ]
    ratio = means["many"] / means["one"]
    return [*rows, Row("mean wait of many over that of one at a time, in %", "", [100 * ratio], "≤ 50")]


def _drawn(models: Sequence[_Model]) -> list[_Request]:
    draw = random.Random(_SEED)
    requests: list[_Request] = []
    after = 0.0
    while (after := after + draw.expovariate(1 / _MEAN_GAP_SECONDS)) < _TRACE_SECONDS:
        (model,) = draw.choices(models, [model.share for model in models])
        answer_seconds = draw.uniform(*model.answer_seconds)
        requests.append(_Request(model.name, after / _FASTER, round(1000 * answer_seconds / _FASTER)))
    return requests


async def _served(port: int, requests: Sequence[_Request]) -> list[float]:
    began = time.perf_counter()
    return await asyncio.gather(*(_wait_of(port, request, began) for request in requests))


async def _wait_of(port: int, request: _Request, began: float) -> float:
    """Return the seconds beyond those of the response itself, from the arrival of the request."""
    comes = began + request.after_seconds
    await asyncio.sleep(comes - time.perf_counter())
    answer = await ask(port, chat_body(request.model, x_delay_ms=request.answer_ms), path=_path_of(request.model))
    if answer.status != 200:
        raise RuntimeError(answer.content.decode())
    return answer.ended - comes - request.answer_ms / 1000

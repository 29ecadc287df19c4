"""Requests for three models in random order: how many swaps they cost, and how long they wait for them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from tests.bench.client import ask
from tests.bench.measure import Row
from tests.bench.stack import Upstream, add_settings, chat_body, register, running_gateway

_MODELS = ("a", "b", "c")
_REQUESTS = 300
_MEAN_GAP_SECONDS = 0.1
_ANSWER_MS = (10, 100)
_LOAD_SECONDS = 0.3
_SEED = 4


@dataclass(frozen=True)
class _Request:
    model: str
    comes_after_seconds: float
    answer_ms: int


@dataclass(frozen=True)
class _Way:
    """A way to serve a trace."""

    title: str
    max_wait_seconds: int
    min_residency_seconds: int
    runs: int
    goal_seconds: str = ""  # on the longest wait
    in_order: bool = False  # whether the client itself finishes all requests for a model before it asks for another


@dataclass(frozen=True)
class _Outcome:
    swaps: int
    lost: int
    most_waited_seconds: float
    waited_seconds: float  # the median of the requests
    seconds: float


_FIRST_COME = _Way("first come, first served", 0, 0, runs=1, in_order=True)
_SHARED = _Way("no model goes ahead (max_wait_seconds = 0)", 0, 0, runs=1)
_BOUNDED = _Way("max_wait_seconds = 1", 1, 2, runs=1, goal_seconds="≤ 1 + two turns")
_USUAL = _Way("as mmd comes (max_wait_seconds = 60)", 60, 2, runs=3, goal_seconds="≤ 60")


def measure(folder: Path) -> list[Row]:
    upstream = Upstream.install(folder, load_seconds=_LOAD_SECONDS)
    register(folder, *_MODELS)
    requests = _drawn()
    counted = 1 + sum(before.model != after.model for before, after in itertools.pairwise(requests))
    print(
        f"{_REQUESTS} requests for {len(_MODELS)} models that load in {_LOAD_SECONDS} s, one each {_MEAN_GAP_SECONDS} s"
        f" on average, answered in {_ANSWER_MS[0]} to {_ANSWER_MS[1]} ms; seed {_SEED}\n"
    )
    rows = [Row("swaps: first come, first served, counted", "", [counted])]
    for way in (_FIRST_COME, _SHARED, _BOUNDED, _USUAL):
        outcomes = [asyncio.run(_served(way, requests, upstream)) for _ in range(way.runs)]
        is_usual = way is _USUAL
        rows += [
            Row(f"swaps: {way.title}", "", [outcome.swaps for outcome in outcomes], f"≤ {counted // 2}" * is_usual),
            Row(f"lost: {way.title}", "", [outcome.lost for outcome in outcomes], "0"),
            Row(
                f"longest wait: {way.title}",
                "s",
                [outcome.most_waited_seconds for outcome in outcomes],
                way.goal_seconds,
            ),
            Row(f"wait, p50: {way.title}", "s", [outcome.waited_seconds for outcome in outcomes]),
            Row(f"until the last answer: {way.title}", "s", [outcome.seconds for outcome in outcomes]),
        ]
    return rows


def _drawn() -> list[_Request]:
    draw = random.Random(_SEED)
    comes = itertools.accumulate(draw.expovariate(1 / _MEAN_GAP_SECONDS) for _ in range(_REQUESTS))
    return [_Request(draw.choice(_MODELS), after, draw.randint(*_ANSWER_MS)) for after in comes]


async def _served(way: _Way, requests: Sequence[_Request], upstream: Upstream) -> _Outcome:
    add_settings(max_wait_seconds=way.max_wait_seconds, min_residency_seconds=way.min_residency_seconds)
    before = upstream.starts()
    with running_gateway() as gateway:
        began = time.perf_counter()
        waits = await (_in_order if way.in_order else _as_they_come)(gateway.port, requests, began)
        seconds = time.perf_counter() - began
    async with Controller() as mmd:
        await mmd.stop()
    served = sorted(wait for wait in waits if wait is not None)
    return _Outcome(
        swaps=upstream.starts() - before,
        lost=len(requests) - len(served),
        most_waited_seconds=served[-1],
        waited_seconds=served[len(served) // 2],
        seconds=seconds,
    )


async def _as_they_come(port: int, requests: Sequence[_Request], began: float) -> list[float | None]:
    return await asyncio.gather(*(_wait_of(port, request, began) for request in requests))


async def _in_order(port: int, requests: Sequence[_Request], began: float) -> list[float | None]:
    waits: list[float | None] = []
    for _, same in itertools.groupby(requests, key=lambda request: request.model):
        waits += await _as_they_come(port, list(same), began)
    return waits


async def _wait_of(port: int, request: _Request, began: float) -> float | None:
    """Return the seconds beyond those of the response itself, from the arrival of the request; None if it was lost."""
    comes = began + request.comes_after_seconds
    await asyncio.sleep(comes - time.perf_counter())
    try:
        answer = await ask(port, chat_body(request.model, x_delay_ms=request.answer_ms))
    except OSError:
        return None
    return answer.ended - comes - request.answer_ms / 1000 if answer.status == 200 else None

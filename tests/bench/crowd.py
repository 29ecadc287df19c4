"""A thousand clients that wait for one swap, half of them for a stream: their delays and the memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.paths import engine_socket
from tests.bench.client import Answer, ask
from tests.bench.measure import Row
from tests.bench.stack import Upstream, chat_body, register, running_gateway

_CLIENTS = 1000
_CHUNKS = 20
_LOAD_SECONDS = 4.0  # long enough for a comment to the waiting streams
_RUNS = 3
_POLL_SECONDS = 0.002
_PROMPT = "word " * 800


@dataclass(frozen=True)
class _Outcome:
    served: int
    commented: int
    first_ms: float  # after the engine listens
    last_ms: float
    idle_mb: float
    peak_mb: float
    after_mb: float


def measure(folder: Path) -> list[Row]:
    Upstream.install(folder, load_seconds=_LOAD_SECONDS)
    register(folder, "old", "new")
    outcomes = [asyncio.run(_swap_for_all()) for _ in range(_RUNS)]
    what = f"{_CLIENTS:,} clients wait for one swap"
    return [
        Row(f"{what}: served", "", [outcome.served for outcome in outcomes], f"{_CLIENTS:,}"),
        Row(f"{what}: streams with comments", "", [outcome.commented for outcome in outcomes], f"{_CLIENTS // 2:,}"),
        Row(f"{what}: engine listens to first answer", "ms", [outcome.first_ms for outcome in outcomes]),
        Row(f"{what}: engine listens to last answer", "ms", [outcome.last_ms for outcome in outcomes]),
        Row(f"{what}: gateway before, resident", "MB", [outcome.idle_mb for outcome in outcomes], "≤ 30"),
        Row(f"{what}: gateway, peak resident", "MB", [outcome.peak_mb for outcome in outcomes], "≤ 100"),
        Row(f"{what}: gateway after, resident", "MB", [outcome.after_mb for outcome in outcomes]),
    ]


async def _swap_for_all() -> _Outcome:
    with running_gateway() as gateway:
        idle_mb = gateway.resident_mb()
        await ask(gateway.port, chat_body("old"))
        listens = asyncio.create_task(_listens_at("new"))
        bodies = [_body(is_stream=number % 2 == 0) for number in range(_CLIENTS)]
        answers = await asyncio.gather(*(ask(gateway.port, body) for body in bodies), return_exceptions=True)
        served = [answer for answer in answers if isinstance(answer, Answer) and _is_whole(answer)]
        listened = await listens
        ends = sorted(answer.ended - listened for answer in served)
        peak_mb, after_mb = gateway.peak_mb(), gateway.resident_mb()
    async with Controller() as mmd:
        await mmd.stop()
    return _Outcome(
        served=len(served),
        commented=sum(b": waiting for new" in answer.content for answer in served),
        first_ms=ends[0] * 1000,
        last_ms=ends[-1] * 1000,
        idle_mb=idle_mb,
        peak_mb=peak_mb,
        after_mb=after_mb,
    )


def _body(*, is_stream: bool) -> bytes:
    if is_stream:
        return chat_body("new", prompt=_PROMPT, stream=True, x_chunks=_CHUNKS)
    return chat_body("new", prompt=_PROMPT)


def _is_whole(answer: Answer) -> bool:
    """Return whether the response is whole: a stream with every chunk and its end, or a single response."""
    pieces = answer.content.count(b"chat.completion")
    is_stream = answer.content.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    return answer.status == 200 and pieces == (_CHUNKS if is_stream else 1)


async def _listens_at(model: str) -> float:
    """Return when its engine first accepts a connection."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(engine_socket(model))
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            now = time.perf_counter()
            writer.close()
            return now

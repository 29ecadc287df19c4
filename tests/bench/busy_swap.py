"""The time of a swap: without a gateway, through it, and through it while other clients use the model to unload."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from tests.bench.client import ask
from tests.bench.load import Generator, Load
from tests.bench.measure import Row
from tests.bench.stack import Gateway, Upstream, chat_body, register, running_gateway

_SWAPS = 10
_ANSWER_MS = 10
_LOAD = Load("16 clients for the old model", 16, 0.6, chat_body("old", x_delay_ms=_ANSWER_MS))
_RUNNING_SECONDS = 0.2  # by then all clients have asked


def measure(folder: Path) -> list[Row]:
    Upstream.install(folder)
    register(folder, "old", "new")
    return asyncio.run(_measure(Generator(folder)))


async def _measure(generator: Generator) -> list[Row]:
    alone, at_rest, busy = [], [], []
    with running_gateway() as gateway:
        async with Controller() as mmd:
            for _ in range(_SWAPS):
                await mmd.activate("old")
                began = time.perf_counter()
                await mmd.activate("new")
                alone.append((time.perf_counter() - began) * 1000)
                await _activate_ms(gateway, "old")
                at_rest.append(await _activate_ms(gateway, "new"))
                await _activate_ms(gateway, "old")
                busy.append(await _busy_ms(gateway, generator))
            await mmd.stop()
    over = [through - statistics.median(alone) for through in busy]
    return [
        Row("swap without a gateway", "ms", alone),
        Row("swap through the gateway at rest", "ms", at_rest),
        Row(f"swap through the gateway, {_LOAD.what}, answered in {_ANSWER_MS} ms", "ms", busy),
        Row("the same over the median without a gateway", "ms", over),
    ]


async def _busy_ms(gateway: Gateway, generator: Generator) -> float:
    started = generator.start(_LOAD, str(gateway.port))
    await asyncio.sleep(_RUNNING_SECONDS)
    milliseconds = await _activate_ms(gateway, "new")
    seen = await asyncio.to_thread(generator.finish, started)
    if seen.failures:
        raise RuntimeError(f"{seen.failures} requests were lost in a swap")
    return milliseconds


async def _activate_ms(gateway: Gateway, model: str) -> float:
    answer = await ask(gateway.port, json.dumps({"model": model}).encode(), path="/models/activate")
    if answer.status != 200:
        raise RuntimeError(answer.content.decode())
    return answer.seconds * 1000

"""The gain of sleep: a swap to a real vLLM that sleeps, beside one to the same vLLM stopped; on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.registry.store import Registry
from tests.bench.measure import Row
from tests.bench.stack import write_settings
from tests.tiny_models import tiny_folder

_MODELS = ("vllm-a", "vllm-b")
_SWAPS = 20
_COLD_STARTS = 2  # swaps; half a minute each


async def measure(folder: Path, program: str) -> list[Row]:
    arguments = '["-O0", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "4"]'
    tables = "".join(f"[models.{name}]\narguments = {arguments}\n" for name in _MODELS)
    write_settings(f'[engines]\nvllm = "{program}"\n{tables}')
    for seed, name in enumerate(_MODELS):
        Registry().add(tiny_folder(folder / name, seed=seed), id=name)
    async with Controller() as mmd:
        await mmd.activate(_MODELS[0])
        stopped = []
        for number in range(_COLD_STARTS):
            wanted = _MODELS[1 - number % 2]
            await mmd.stop(wanted)
            stopped.append(await _activate_ms(mmd, wanted))
        slept = [await _activate_ms(mmd, _MODELS[1 - number % 2]) for number in range(_COLD_STARTS, _SWAPS)]
        await mmd.stop()
    times = [min(stopped) / each for each in slept]
    return [
        Row("swap to a vLLM that was stopped (real, CPU, -O0)", "ms", stopped),
        Row("swap to a vLLM that sleeps (the same two)", "ms", slept),
        Row("times faster, against the quickest of the stopped", "x", times, "≥ 20"),
    ]


async def _activate_ms(mmd: Controller, name: str) -> float:
    began = time.perf_counter()
    await mmd.activate(name)
    return (time.perf_counter() - began) * 1000

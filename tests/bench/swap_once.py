"""Swap two models to and fro with the mmd on PYTHONPATH, this one or an older one.

Print the milliseconds of each swap, and the CPU time of its planner.

python tests/bench/swap_once.py SWAPS MODEL_A.gguf MODEL_B.gguf
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.registry.store import Registry


async def main(swaps: int, *files: str) -> None:
    known = {model.id for model in Registry().all()}
    for name, file in zip("ab", files, strict=True):
        if name not in known:
            Registry().add(Path(file), id=name)
    times = []
    async with Controller() as mmd:
        await mmd.activate("b")
        cpu_before = time.process_time()
        for number in range(swaps):
            began = time.perf_counter()
            await mmd.activate("ab"[number % 2])
            times.append(round((time.perf_counter() - began) * 1000, 2))
        cpu_ms = (time.process_time() - cpu_before) * 1000 / swaps
        await mmd.stop()
    print(json.dumps({"ms": times, "cpu_ms": round(cpu_ms, 2)}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))

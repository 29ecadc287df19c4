"""The cost of a swap beyond the engine's own time: the same two commands, by mmd and bare, in turns."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.plan.launch import Launch
from mmd.registry.store import Registry
from tests.bench.measure import Row
from tests.tiny_models import tiny_gguf

_BLOCKS = 7
_SWAPS = ("a", "b") * 4
_POLL_SECONDS = 0.002


async def measure(folder: Path) -> list[Row]:
    for name in ("a", "b"):
        Registry().add(tiny_gguf(folder / f"{name}.gguf", name=name), id=name)
    by_mmd: list[float] = []
    bare: list[float] = []
    over: list[float] = []
    async with Controller() as mmd:
        launches = {name: await mmd.planner.launch(name) for name in ("a", "b")}
        for _ in range(_BLOCKS):
            mine = await _by_mmd(mmd)
            theirs = await asyncio.to_thread(_bare, launches)
            over.append(statistics.median(mine) - statistics.median(theirs))
            by_mmd += mine
            bare += theirs
    return [
        Row(f"swap by mmd ({launches['a'].title})", "ms", by_mmd),
        Row("swap bare: SIGTERM, exec, poll every 2 ms", "ms", bare),
        Row("swap overhead, median of a block over the bare block beside it", "ms", over, "≤ 30"),
    ]


async def _by_mmd(mmd: Controller) -> list[float]:
    await mmd.activate("b")
    times = []
    for name in _SWAPS:
        began = time.perf_counter()
        await mmd.activate(name)
        times.append((time.perf_counter() - began) * 1000)
    await mmd.stop()
    return times


def _bare(launches: dict[str, Launch]) -> list[float]:
    running = _start(launches["b"])
    times = []
    for name in _SWAPS:
        began = time.perf_counter()
        running = _replace(running, launches[name])
        times.append((time.perf_counter() - began) * 1000)
    _end(running)
    return times


def _replace(running: subprocess.Popen[bytes], launch: Launch) -> subprocess.Popen[bytes]:
    _end(running)
    return _start(launch)


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    path = Path(launch.socket)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    process = subprocess.Popen(
        launch.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | dict(launch.environment)
    )
    while not _answers(path):
        time.sleep(_POLL_SECONDS)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        probe.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return probe.recv(64).startswith(b"HTTP/1.1 200")

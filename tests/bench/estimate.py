"""The time to estimate what a model needs, and the bytes that are read for a model on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from mmd.control.memory.estimate import Estimator
from mmd.control.memory.target import estimate_target
from mmd.machine import read_machine
from mmd.settings import read_settings
from tests.bench.measure import Row
from tests.fakes.hub import FakeHub, FakeRepository, OnDisk, fake_hub
from tests.tiny_models import sparse_gguf

_RUNS = 10
_LARGE_BYTES = 30 * 10**9
# As many tokens and merges as Gemma has: 13 MB of header.
_VOCABULARY = {"tokenizer.ggml.tokens": [f"token-{number:07}" for number in range(262_144)]}
_MERGES = {"tokenizer.ggml.merges": [f"tok en-{number:07}" for number in range(262_144)]}


def measure(folder: Path) -> list[Row]:
    path = sparse_gguf(folder / "large.gguf", _LARGE_BYTES, metadata=_VOCABULARY | _MERGES)
    with fake_hub() as hub:
        hub.repositories["me/large-GGUF"] = FakeRepository({path.name: OnDisk(path, sha256="a" * 64)})
        there = [_remote(hub, folder / str(number)) for number in range(3)]
    rows = [
        Row("of a local file of 30 GB, by its header", "ms", _by_header(path), "≤ 100"),
        Row("the same, a whole `mmd estimate --no-engine`", "ms", _whole(str(path), "--no-engine")),
        Row("of one on a hub of this machine, a whole `mmd estimate`", "ms", [seconds * 1000 for seconds, _ in there]),
        Row("read of its 30 GB", "MB", [sent / 1e6 for _, sent in there], "≤ 25"),
    ]
    if os.environ.get("MMD_TEST_LLAMA_SERVER"):
        rows.insert(2, Row("with llama-server asked again", "ms", _asked(str(path))))
    return rows


def _by_header(path: Path) -> list[float]:
    """Measure in a running process: read the file, and compute the formulas."""
    machine, settings = read_machine(), read_settings()
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        about = estimate_target(str(path), machine, settings)
        Estimator(machine, settings).answer(about.model, asks_engine=False)
        times.append((time.perf_counter() - began) * 1000)
    return times


def _asked(path: str) -> list[float]:
    return [_run("estimate", path, "--context", str(4096 + 256 * number)) * 1000 for number in range(_RUNS)]


def _whole(*words: str) -> list[float]:
    return [_run("estimate", *words) * 1000 for _ in range(_RUNS + 1)][1:]  # the first run writes the bytecode


def _remote(hub: FakeHub, cache: Path) -> tuple[float, int]:
    """Return the seconds, and the bytes that the hub sent."""
    hub.sent.clear()
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(cache)}
    seconds = _run("estimate", "me/large-GGUF", "--no-engine", **environment)
    return seconds, sum(hub.sent)


def _run(*words: str, **environment: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "mmd", *words],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # the status tells whether it fits
    )
    return time.perf_counter() - began

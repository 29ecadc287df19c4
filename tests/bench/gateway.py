"""The gateway at rest: its memory, and how soon it listens."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from tests.bench.measure import Row
from tests.bench.stack import running_gateway

_RUNS = 9


def measure(_folder: Path) -> list[Row]:
    listening, idle, managed = [], [], []
    for _ in range(_RUNS + 1):  # the first run writes the bytecode, and is not counted
        with running_gateway() as gateway:
            listening.append(gateway.listening_ms)
            idle.append(gateway.resident_mb())
            for path in ("health", "status", "models"):
                urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/{path}", timeout=10).read()
            managed.append(gateway.resident_mb())
    return [
        Row("gateway, from exec to listening", "ms", listening[1:], "≤ 150"),
        Row("gateway idle, resident", "MB", idle[1:], "≤ 30"),
        Row("gateway after management requests, resident", "MB", managed[1:]),
    ]

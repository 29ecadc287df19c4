"""The gateway at rest: what it takes of the memory, and how soon it listens."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.bench.measure import Row

_RUNS = 5


def measure() -> list[Row]:
    listening, idle, managed = [], [], []
    for _ in range(_RUNS):
        port = _free_port()
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "mmd", "gateway", "--listen", f"127.0.0.1:{port}"])
        try:
            while not _listens(port):
                time.sleep(0.002)
            listening.append((time.perf_counter() - began) * 1000)
            idle.append(_resident_mib(process.pid))
            for path in ("health", "status", "models"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10).read()
            managed.append(_resident_mib(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)
    return [
        Row("gateway, from exec to listening", "ms", listening),
        Row("gateway idle, resident", "MiB", idle, "≤ 40"),
        Row("gateway after management requests, resident", "MiB", managed, "≤ 40"),
    ]


def _resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

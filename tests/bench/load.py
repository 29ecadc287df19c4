"""Load on an address, made by load.c."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stack import compiled


@dataclass(frozen=True)
class Load:
    """This many clients repeat a request for this long, each as soon as it has its response."""

    what: str
    clients: int
    seconds: float
    body: bytes


@dataclass(frozen=True)
class Seen:
    """The results; counts include everything, rates and times leave the first moments out."""

    answers: int
    chunks: int
    failures: int
    answers_per_second: float
    chunks_per_second: float
    p50_us: float
    p99_us: float
    first_byte_p50_us: float


class Generator:
    def __init__(self, folder: Path) -> None:
        self._program = compiled("load", folder)
        self._body_file = folder / "body"

    def start(self, load: Load, address: str) -> subprocess.Popen[str]:
        """Start the load; `address` is a port of 127.0.0.1, or a Unix socket."""
        self._body_file.write_bytes(load.body)
        command = (self._program, address, str(load.clients), str(load.seconds), self._body_file)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def finish(started: subprocess.Popen[str]) -> Seen:
        printed, _ = started.communicate(timeout=120)
        if started.returncode != 0:
            raise RuntimeError(f"load ended with status {started.returncode}")
        return Seen(**json.loads(printed))

    def run(self, load: Load, address: str) -> Seen:
        seen = self.finish(self.start(load, address))
        if seen.failures:
            raise RuntimeError(f"{load.what} on {address}: {seen.failures} requests failed")
        return seen

"""An engine as a process on a Unix socket, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

READY_SECONDS = 100  # vLLM imports for ten seconds first, and for thirty on a busy machine
_ANSWER_SECONDS = 30


class Running:
    def __init__(self, process: subprocess.Popen[bytes], socket_path: Path, stderr_path: Path) -> None:
        self.process = process
        self.socket_path = socket_path
        self.stderr_path = stderr_path
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket_path)),
            base_url="http://engine",
            timeout=_ANSWER_SECONDS,
        )

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def post(self, path: str, **record: Any) -> httpx.Response:
        return self.http.post(path, json=record)

    def wait_listening(self) -> httpx.Response:
        """Return the first response to /health, whatever it is."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.connect() == 0:
                return self.get("/health")
            time.sleep(0.002)
        raise AssertionError(f"it does not listen: {self.stderr()}")

    def wait_said(self, words: str) -> None:
        """Wait until this is in its log."""
        deadline = time.monotonic() + READY_SECONDS
        while words not in self.stderr():
            assert time.monotonic() < deadline and self.process.poll() is None, self.stderr()
            time.sleep(0.01)

    def connect(self) -> int:
        """Return the error number of an attempt to connect, 0 if it succeeds."""
        # Not httpx: httpcore leaks its socket if a Unix socket refuses, and warnings are errors here.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket_path))

    def wait_ready(self) -> Running:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.wait_listening().status_code == httpx.codes.OK:
                return self
            time.sleep(0.002)
        raise AssertionError(f"it does not become ready: {self.stderr()}")

    def wait_busy(self) -> None:
        """Wait until one of llama.cpp's slots works on a request."""
        deadline = time.monotonic() + READY_SECONDS
        while not any(slot["is_processing"] for slot in self.get("/slots").json()):
            assert time.monotonic() < deadline, "no slot became busy"
            time.sleep(0.002)

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        return self.process.wait(READY_SECONDS)

    def terminate(self) -> int:
        self.process.terminate()
        return self.wait()

    def stop_like_systemd(self, stop_seconds: int) -> int:
        """Send SIGTERM, then SIGKILL if it does not end in time: what the unit does."""
        self.process.terminate()
        try:
            return self.process.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait()

    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")


@contextmanager
def running(command: Sequence[str], model: Path, *more: str, alias: str = "tiny") -> Iterator[Running]:
    """Run the engine of `command` with `model`, on a socket beside it."""
    socket_path = model.with_suffix(".sock")
    with started((*command, "-m", str(model), "--host", str(socket_path), "--alias", alias, *more), socket_path) as it:
        yield it


@contextmanager
def started(argv: Sequence[str], socket_path: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    stderr_path = socket_path.with_suffix(".stderr")
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environment, start_new_session=True
        )
    engine = Running(process, socket_path, stderr_path)
    try:
        yield engine
    finally:
        engine.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children, too: vLLM's outlive it if it is killed
        process.wait()


def stream_events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the records of a streamed response, which must end like OpenAI's."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]

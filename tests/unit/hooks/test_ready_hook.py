"""The ready hook as systemd runs it: a real process, and an engine on a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mmd import hooks

HOOKS = Path(hooks.__file__).parent
_SECONDS = 30  # more than any step here needs

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LOADING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
NOTHING = b""


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A short path: that of a Unix socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mm") as folder:
        yield Path(folder, "api.sock")


# --- ready


class Scripted:
    """A server that gives one of these answers to each connection, repeats the last one, and counts them."""

    def __init__(self, path: Path, *answers: bytes, is_silent: bool = False) -> None:
        self.asked: list[bytes] = []
        self._answers = list(answers)
        self._is_silent = is_silent
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                self.asked.append(connection.recv(4096))
                if self._is_silent:
                    connection.recv(1)  # until the hook closes the connection
                    continue
                with suppress(BrokenPipeError):  # the hook was stopped meanwhile
                    connection.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


@contextmanager
def scripted(path: Path, *answers: bytes, is_silent: bool = False) -> Iterator[Scripted]:
    server = Scripted(path, *answers, is_silent=is_silent)
    try:
        yield server
    finally:
        server.close()


def ready_command(path: Path, seconds: float) -> list[str]:
    return [sys.executable, "-I", "-S", str(HOOKS / "ready.py"), str(path), str(seconds)]


def ready(path: Path, seconds: float, *, engine_pid: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ready_command(path, seconds),
        env={"MAINPID": str(engine_pid or os.getpid())},
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


def ended_pid() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["/bin/true"])
    process.wait(_SECONDS)
    return process.pid


def test_ready_engine_is_ready_at_the_first_question(socket_path: Path) -> None:
    with scripted(socket_path, OK) as server:
        done = ready(socket_path, 20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.asked) == 1
    assert server.asked[0].startswith(b"GET /health HTTP/1.1\r\n")


def test_ready_waits_for_an_engine_that_does_not_listen_yet(socket_path: Path) -> None:
    process = subprocess.Popen(ready_command(socket_path, 20), env={"MAINPID": str(os.getpid())})
    with scripted(socket_path, OK):
        assert process.wait(_SECONDS) == 0


def test_ready_waits_while_the_engine_refuses(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(socket_path))  # it does not listen: every connection is refused
        done = ready(socket_path, 0.2)
    assert done.returncode == 1
    assert "Not ready after 0 s" in done.stderr
    assert "refused" in done.stderr


def test_ready_waits_while_the_model_loads(socket_path: Path) -> None:
    with scripted(socket_path, LOADING, LOADING, NOTHING, OK) as server:
        assert ready(socket_path, 20).returncode == 0
    assert len(server.asked) == 4


def test_ready_times_out_and_logs_the_last_status(socket_path: Path) -> None:
    with scripted(socket_path, LOADING):
        done = ready(socket_path, 0.2)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the last response to /health: 503" in done.stderr


def test_ready_times_out_if_the_engine_is_silent(socket_path: Path) -> None:
    patient = ready_command(socket_path, 0.3)
    short = f"import sys; sys.path.insert(0, {str(HOOKS)!r}); import ready; ready._RESPONSE_TIMEOUT_SECONDS = 0.05; "
    words = [*patient[:3], "-c", f"{short} sys.exit(ready.main())", *patient[4:]]
    with scripted(socket_path, is_silent=True) as server:
        done = subprocess.run(
            words, env={"MAINPID": str(os.getpid())}, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    assert done.returncode == 1
    assert "timed out" in done.stderr
    assert len(server.asked) > 1, "a lost answer must not last for ever"


def test_ready_succeeds_if_the_engine_has_ended(socket_path: Path) -> None:
    """The engine's exit decides. If the hook failed, a stopped engine would count as a failed one."""
    assert ready(socket_path, 20, engine_pid=ended_pid()).returncode == 0


def test_stopped_ready_hook_ends_an_engine_that_lost_its_sigterm(socket_path: Path) -> None:
    """vLLM loses it while it loads; systemd counts an end by SIGHUP as clean."""
    deaf = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; while :; do /bin/sleep 60; done"], start_new_session=True)
    with scripted(socket_path, LOADING) as server:
        hook = subprocess.Popen(ready_command(socket_path, 60), env={"MAINPID": str(deaf.pid)})
        while not server.asked and hook.poll() is None:  # before its first request, its signal handler may not be set
            time.sleep(0.002)
        hook.terminate()
        assert hook.wait(_SECONDS) == 0
    assert deaf.wait(_SECONDS) == -signal.SIGHUP
    os.killpg(deaf.pid, signal.SIGKILL)  # the sleep that it started


# --- the time that a start takes


def test_ready_imports_few_modules() -> None:
    """A model that loads in 30 ms must not wait for the hook."""
    words = [sys.executable, "-I", "-S", "-X", "importtime", str(HOOKS / "ready.py"), "/none", "0"]
    done = subprocess.run(words, env={"MAINPID": "1"}, capture_output=True, text=True, check=False, timeout=_SECONDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "_socket" in imported
    assert not imported & {"socket", "selectors", "asyncio", "http.client", "subprocess", "json", "re", "pathlib"}

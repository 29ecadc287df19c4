"""The stack to measure: the real gateway over a real user manager, in front of an engine that costs nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmd.paths import config_file
from mmd.registry.store import Registry
from tests.fakes.engine import HELP, VERSION
from tests.tiny_models import tiny_gguf

_HERE = Path(__file__).parent
_POLL_SECONDS = 0.002
_UP_SECONDS = 20.0


@dataclass(frozen=True)
class Gateway:
    """A running `mmd gateway`."""

    port: int
    pid: int
    listening_ms: float  # after its exec

    def resident_mb(self) -> float:
        return self._memory_mb("VmRSS")

    def peak_mb(self) -> float:
        return self._memory_mb("VmHWM")

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, in steps of 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory_mb(self, field: str) -> float:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024 / 1e6


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mmd", "gateway", "--listen", f"127.0.0.1:{port}"])
    try:
        wait_until_listening(port, process)
        yield Gateway(port, process.pid, (time.perf_counter() - began) * 1000)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def compiled(name: str, folder: Path) -> Path:
    """Compile the program `name`.c beside this file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "the bench needs a C compiler: apt-get install gcc libc6-dev"
    program = folder / name
    subprocess.run((compiler, "-O2", "-Wall", "-Werror", "-o", program, _HERE / f"{name}.c"), check=True)
    return program


@dataclass(frozen=True)
class Upstream:
    """Install upstream.c in place of llama-server: models that respond at once, and take `exit_ms` to end.

    A load takes as many seconds as the file MODEL.load says, or else `load_seconds`.
    """

    program: Path
    starts_file: Path

    @classmethod
    def install(cls, folder: Path, *, load_seconds: float = 0.0, exit_ms: int = 0) -> Upstream:
        upstream = cls(compiled("upstream", folder), folder / "starts")
        for name, text in (("help", HELP), ("version", VERSION)):
            (folder / name).write_text(f"{text}\n")
        wrapper = folder / "llama-server"
        load = f'if [ -e "$2.load" ]; then sleep "$(cat "$2.load")"; else sleep {load_seconds}; fi'
        wrapper.write_text(
            f"""#!/bin/sh
            case "$1" in
            --help | --version) cat "{folder}/${{1#--}}" ;;
            *) echo >>"{upstream.starts_file}"; {load}; exec "{upstream.program}" --exit-ms {exit_ms} "$@" ;;
            esac
            """
        )
        wrapper.chmod(0o755)
        write_settings(f'[engines]\nllama-server = "{wrapper}"\n')
        return upstream

    def starts(self) -> int:
        """Return how many engines were started."""
        return len(self.starts_file.read_text().splitlines()) if self.starts_file.exists() else 0

    @contextmanager
    def on_tcp(self) -> Iterator[int]:
        """Start another one without a gateway in between; return its port."""
        port = free_port()
        process = subprocess.Popen([self.program, "--port", str(port)])
        try:
            wait_until_listening(port, process)
            yield port
        finally:
            process.kill()
            process.wait()


def register(folder: Path, *names: str) -> None:
    for name in names:
        Registry().add(tiny_gguf(folder / f"{name}.gguf", name=name), id=name)


def write_settings(text: str) -> None:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(text)


def add_settings(**gateway: int) -> None:
    """Set the [gateway] table of mmd.toml, for gateways that start from now on."""
    engines = config_file().read_text().partition("[gateway]")[0]
    write_settings(engines + "[gateway]\n" + "".join(f"{name} = {value}\n" for name, value in gateway.items()))


def chat_body(model: str, *, prompt: str = "hello", **options: int | bool) -> bytes:
    """Return a chat request; `options` come first, where upstream.c looks for them."""
    body = {"model": model, **options, "messages": [{"role": "user", "content": prompt}]}
    return json.dumps(body, separators=(",", ":")).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _UP_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"nothing listens on port {port}")

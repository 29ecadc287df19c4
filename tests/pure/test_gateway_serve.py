"""From the sockets to the end of the process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.errors import MmdError, WrongUsage
from mmd.gateway.listen import listening_sockets
from mmd.gateway.serve import serve
from tests.gateway_peer import PATIENCE_SECONDS, Answered, Asked, MemoryModels, Peer, RawClient, post


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd would hear."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{folder}/notify")
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        yield heard


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _message(heard: socket.socket) -> bytes:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await asyncio.get_running_loop().sock_recv(heard, 100)


async def _connect(port: int) -> RawClient:
    return RawClient(*await asyncio.open_connection("127.0.0.1", port))


async def test_idle_gateway_ends_at_once(messages: socket.socket, port: int) -> None:
    serving = asyncio.create_task(serve(MemoryModels({}), listen=("127.0.0.1", port)))
    assert await _message(messages) == b"READY=1"
    client = await _connect(port)
    answer = await client.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 500  # nothing is active, and the connection stays
    os.kill(os.getpid(), signal.SIGTERM)
    assert await _message(messages) == b"STOPPING=1"
    await asyncio.wait_for(serving, PATIENCE_SECONDS)
    assert await client.rest() == b""
    client.leave()


async def test_running_answer_finishes_before_the_end(messages: socket.socket, port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer("a", Path(folder))
        await peer.start()
        release = asyncio.Event()

        async def slow(asked: Asked) -> None:
            await release.wait()
            await asked.answer(b"{}")

        peer.on["/v1/x"] = slow
        serving = asyncio.create_task(serve(MemoryModels({"a": peer}, "a"), listen=("127.0.0.1", port)))
        await _message(messages)
        client = await _connect(port)
        asking: asyncio.Task[Answered] = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/x")))
        await peer.has_been_asked(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert await _message(messages) == b"STOPPING=1"
        with pytest.raises(ConnectionRefusedError):
            await _connect(port)
        release.set()
        assert (await asking).status == 200
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
        assert await client.rest() == b""
        client.leave()
        await peer.stop()


def test_taken_port_is_named(port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(MmdError, match=f"port {port} .* taken") as error,
    ):
        listening_sockets(("127.0.0.1", port))
    assert f"sport = :{port}" in error.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(WrongUsage, match="other machines") as error:
        listening_sockets((host, 0))
    assert "--listen 127.0.0.1" in error.value.hint


def test_address_that_is_none_is_refused() -> None:
    with pytest.raises(WrongUsage, match="no address"):
        listening_sockets(("not a host", 0))


_ACTIVATED = """
import os, sys, socket
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_PID": sys.argv[3] if len(sys.argv) > 3 else str(os.getpid())}
from mmd.errors import WrongUsage
from mmd.gateway.listen import listening_sockets
try:
    print([listener.getsockname() for listener in listening_sockets(("127.0.0.1", 0))], "LISTEN_FDS" in os.environ)
except WrongUsage as error:
    print(error)
"""


def _activated(*listeners: socket.socket, pid: str | None = None) -> str:
    numbers = [str(listener.fileno()) for listener in listeners]
    command = [sys.executable, "-c", _ACTIVATED, *numbers, *([pid] if pid else [])]
    descriptors = [listener.fileno() for listener in listeners]
    done = subprocess.run(
        command, pass_fds=descriptors, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return done.stdout.strip()


def test_sockets_of_systemd_are_used(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as tcp:
        with socket.create_server(f"{folder}/s", family=socket.AF_UNIX) as unix:
            assert _activated(tcp, unix) == f"[{tcp.getsockname()}, '{folder}/s'] False"
            assert _activated(tcp, unix, pid="1") != f"[{tcp.getsockname()}, '{folder}/s'] False"
        with socket.create_server(("0.0.0.0", 0)) as exposed:
            assert "other machines" in _activated(tcp, exposed)


def test_start_imports_no_framework() -> None:
    """They cost 10 MB and 150 ms, and a gateway that only passes requests on never needs them."""
    program = "import sys, mmd.gateway.serve; print({'starlette', 'uvicorn', 'httpx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"

"""The gateway's process, from its sockets to its end."""

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

from mmd import __version__
from mmd.control.install.addresses import gateway_addresses
from mmd.control.install.presence import running_version
from mmd.errors import MmdError, WrongUsage
from mmd.gateway.http.sockets import bind_tcp, bind_unix, first_exposed, is_listened_on, local_address
from mmd.gateway.serve import serve
from mmd.settings import read_settings
from tests.gateway_peer import PATIENCE_SECONDS, EngineRequest, MemoryModels, Peer, RawClient, ReceivedResponse, post


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The messages that systemd would receive."""
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
    serving = asyncio.create_task(serve(MemoryModels({}), [bind_tcp("127.0.0.1", port)]))
    assert await _message(messages) == b"READY=1"
    client = await _connect(port)
    answer = await client.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 500  # nothing is active, and the connection stays open
    os.kill(os.getpid(), signal.SIGTERM)
    assert await _message(messages) == b"STOPPING=1"
    await asyncio.wait_for(serving, PATIENCE_SECONDS)
    assert await client.rest() == b""
    client.disconnect()


async def test_running_response_finishes_before_the_end(messages: socket.socket, port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer("a", Path(folder))
        await peer.start()
        release = asyncio.Event()

        async def slow(received: EngineRequest) -> None:
            await release.wait()
            await received.answer(b"{}")

        peer.on["/v1/x"] = slow
        serving = asyncio.create_task(serve(MemoryModels({"a": peer}, "a"), [bind_tcp("127.0.0.1", port)]))
        await _message(messages)
        client = await _connect(port)
        asking: asyncio.Task[ReceivedResponse] = asyncio.create_task(client.ask(post({"model": "a"}, "/v1/x")))
        await peer.has_received(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert await _message(messages) == b"STOPPING=1"
        with pytest.raises(ConnectionRefusedError):
            await _connect(port)
        release.set()
        assert (await asking).status == 200
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
        assert await client.rest() == b""
        client.disconnect()
        await peer.stop()


@pytest.mark.parametrize("turns", range(10))
async def test_connection_at_the_end_is_served_or_left_to_the_next(messages: socket.socket, turns: int) -> None:
    """asyncio drops connections accepted just before their server is closed: clients used to get a reset."""
    listener = bind_tcp("127.0.0.1", 0)
    with listener.socket.dup() as systemds:
        serving = asyncio.create_task(serve(MemoryModels({}), [listener]))
        await _message(messages)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(turns):
            await asyncio.sleep(0)
        with socket.create_connection(systemds.getsockname(), PATIENCE_SECONDS) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(serving, PATIENCE_SECONDS)
            try:
                systemds.accept()[0].close()
            except BlockingIOError:
                assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_taken_port_is_named(port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(MmdError, match=f"port {port} .* taken") as error,
    ):
        bind_tcp("127.0.0.1", port)
    assert f"sport = :{port}" in error.value.hint


def test_invalid_address_is_refused() -> None:
    with pytest.raises(WrongUsage, match="not a valid address"):
        bind_tcp("not a host", 0)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("localhost:8000", None), ("[::1]:80", None), ("0.0.0.0:1", "0.0.0.0:1"), ("[::]:1", "[::]:1")],
)
def test_first_exposed_address(listen: str, address: str | None, own_home: Path) -> None:
    file = own_home / ".config/mmd/mmd.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[gateway]\nlisten = "{listen}"\nembedding_listen = ""\n')
    addresses = gateway_addresses(read_settings())
    assert addresses.embedding is None
    assert first_exposed(addresses.all) == address


def test_local_address() -> None:
    shown = {"0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "192.0.2.1:1": "192.0.2.1:1", "[::1]:1": "[::1]:1"}
    assert {address: local_address(address) for address in shown} == shown


def test_wildcard_listener_is_exposed() -> None:
    listeners = [bind_tcp("0.0.0.0", 0), bind_tcp("::", 0), bind_tcp("127.0.0.1", 0)]
    try:
        assert [one.is_exposed for one in listeners] == [True, True, False]
    finally:
        for one in listeners:
            one.socket.close()


_ACTIVATED = """
import os, sys, socket
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_PID": sys.argv[3] or str(os.getpid()), "LISTEN_FDNAMES": sys.argv[4]}
from mmd.gateway.http.sockets import inherited_listeners
for listener in inherited_listeners():
    print(listener.kind, listener)
assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & os.environ.keys()
"""


def _activated(*listeners: socket.socket, names: str, pid: str = "") -> list[str]:
    numbers = [str(listener.fileno()) for listener in listeners]
    command = [sys.executable, "-c", _ACTIVATED, *numbers, pid, names]
    descriptors = [listener.fileno() for listener in listeners]
    done = subprocess.run(
        command, pass_fds=descriptors, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return done.stdout.splitlines()


def test_inherited_sockets_are_identified_by_name() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        with socket.create_server(f"{folder}/s", family=socket.AF_UNIX) as unix:
            main, local = f"main 127.0.0.1:{port}", f"local {folder}/s"
            assert _activated(tcp, unix, names="main:local") == [main, local]
            assert _activated(tcp, unix, names="mmd.socket:mmd.socket") == [main, local]  # added by a drop-in
            assert _activated(tcp, unix, names="") == [main, local]
            assert _activated(tcp, unix, names="embedding:local") == [f"embedding 127.0.0.1:{port}", local]
            assert _activated(tcp, unix, names="main:local", pid="1") == []


def test_unix_socket_is_private_and_not_taken_by_others() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s")
        assert not is_listened_on(path)
        listener = bind_unix(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(MmdError, match="another gateway"):
            bind_unix(path)
        with pytest.raises(BlockingIOError):
            listener.socket.accept()  # the probe does not connect
        listener.socket.close()
        assert not is_listened_on(path)  # the file of a killed gateway does not count
        bind_unix(path).socket.close()


async def test_running_gateway_announces_its_version(
    messages: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert running_version() is None
    with tempfile.TemporaryDirectory() as folder:
        listener = bind_unix(Path(folder, "s"))
        serving = asyncio.create_task(serve(MemoryModels({}), [listener]))
        await _message(messages)
        assert running_version() == running_version() == __version__
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
    assert running_version() is None


async def test_gateway_without_a_unix_socket_announces_nothing(
    messages: socket.socket, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    serving = asyncio.create_task(serve(MemoryModels({}), [bind_tcp("127.0.0.1", port)]))
    await _message(messages)
    assert running_version() is None
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, PATIENCE_SECONDS)


def test_start_imports_no_framework() -> None:
    """They take 10 MB and 150 ms, and a gateway that only forwards requests never needs them."""
    program = "import sys, mmd.gateway.serve; print({'starlette', 'uvicorn', 'httpx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


# Imported by the first swap, the first verb that writes settings, the first management request, and by child
# processes.
_IMPORTED_LATER = {
    *(
        "mmd.engines",
        "mmd.plan.choose",
        "mmd.engines.vllm.argv",
        "mmd.control.lifecycle.swap",
        "mmd.control.lifecycle.demote",
    ),
    *(
        "mmd.control.lifecycle.suspend",
        "mmd.control.lifecycle.missing_hook",
        "mmd.control.lifecycle.confirmation",
        "mmd.settings_edit",
        "mmd.registry.detect",
    ),
    *("starlette", "uvicorn", "httpx", "anyio", "wsproto", "tomlkit", "psutil", "pynvml", "huggingface_hub"),
    *("ssl", "_ssl", "_hashlib"),
}

_GATEWAY = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
sys.argv = ["mmd", "gateway"]
from mmd.cli import main
main()
"""


def test_start_imports_nothing_that_an_idle_gateway_never_needs(tmp_path: Path) -> None:
    """Start the gateway until it fails to reach the bus: by then all top-level imports have been made."""
    environment = os.environ | {
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/bus",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _GATEWAY], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    modules = set(done.stdout.split())
    assert {"mmd.gateway.connection", "dbus_fast"} <= modules, done.stderr
    assert not modules & _IMPORTED_LATER

"""Checks of RAM, suspend, disks, folders, ports and the hub."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mmd import paths
from mmd.control.doctor import folders
from mmd.control.doctor.diagnosis import Level, failed
from mmd.control.doctor.disk import DiskSpace, check_disks, read_disks
from mmd.control.doctor.folders import (
    EngineSockets,
    FolderState,
    check_folders,
    check_sockets,
    read_folders,
    read_sockets,
)
from mmd.control.doctor.hub import explain_hub_error
from mmd.control.doctor.memory import RamState, check_ram, read_ram
from mmd.control.doctor.ports import (
    GatewayAddress,
    PortOwner,
    check_addresses,
    check_health,
    read_health,
    read_port_owners,
)
from mmd.control.doctor.suspend import SleepLock, check_suspend
from mmd.control.state.status import Sleeping
from mmd.registry.record import Model
from tests.unit.plan.planned import GIB, facts, model

RAM = RamState(32 * GIB, 20 * GIB, 8 * GIB, 0, 0, ())
SLEEPERS = (Sleeping("a", 1, 4 * GIB, None), Sleeping("b", 1, 9 * GIB, None))
LARGE = model(facts(weights_bytes=40 * GIB), id="large")


@pytest.mark.parametrize(
    ("ram", "models", "sleeping", "has_gpu", "state", "says", "hint"),
    [
        (RAM, (), (), False, Level.OK, "20.0 of 32.0 GiB available", ""),
        (RAM, (LARGE,), SLEEPERS, True, Level.OK, "a, b asleep with 13.0 GiB", ""),
        (replace(RAM, watchers=("earlyoom",)), (), (), True, Level.OK, "earlyoom may kill an engine", ""),
        (replace(RAM, swap_used_bytes=3 * GIB), (), (), True, Level.OK, "3.0 of 8.0 GiB swap used", ""),
        (replace(RAM, available_bytes=GIB), (), SLEEPERS, True, Level.WARNING, "1.0 of 32.0", "mmd stop b"),
        (replace(RAM, available_bytes=GIB), (), (), True, Level.WARNING, "1.0 of 32.0", "ps -eo rss"),
        (RAM, (LARGE,), (), False, Level.WARNING, "large has 40.0 GiB of weights", "mmd estimate large"),
        (replace(RAM, overcommit=2), (), (), True, Level.WARNING, "vm.overcommit_memory is 2", "sudo sysctl"),
    ],
)
def test_ram(
    ram: RamState,
    models: tuple[Model, ...],
    sleeping: tuple[Sleeping, ...],
    has_gpu: bool,
    state: Level,
    says: str,
    hint: str,
) -> None:
    (diagnosis,) = check_ram(ram, models, sleeping, has_gpu=has_gpu)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_ram_of_this_machine() -> None:
    ram = read_ram()
    assert 0 < ram.available_bytes <= ram.total_bytes
    assert ram.overcommit in (0, 1, 2)


# -- suspending


@pytest.mark.parametrize(
    ("lock", "has_gpu", "state", "says"),
    [
        (None, True, Level.OK, "no logind"),
        (SleepLock(5), True, Level.OK, "models leave the GPU first; logind waits up to 5 s"),
        (
            SleepLock(5, "no lock", "sudo apt install polkitd"),
            True,
            Level.WARNING,
            "no lock; a suspend interrupts responses",
        ),
        (
            SleepLock(5, "no lock", "sudo apt install polkitd"),
            False,
            Level.OK,
            "models on the CPU are not affected",
        ),
    ],
)
def test_suspending(lock: SleepLock | None, has_gpu: bool, state: Level, says: str) -> None:
    (diagnosis,) = check_suspend(lock, has_gpu=has_gpu)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint == (lock.hint if lock and state is Level.WARNING else "")


# -- disks

DISK = DiskSpace("/", "ext4", 500 * GIB, 100 * GIB, False, ("downloads", "mmd's records", "models"))


@pytest.mark.parametrize(
    ("disk", "state", "says", "hint"),
    [
        (DISK, Level.OK, "/: 100.0 GiB free (downloads, mmd's records, models)", ""),
        (replace(DISK, free_bytes=5 * GIB), Level.WARNING, "too little for most downloads", "mmd disk"),
        (replace(DISK, free_bytes=5 * GIB, holds=("mmd's records",)), Level.OK, "5.0 GiB free", ""),
        (replace(DISK, free_bytes=1000), Level.FAILED, "nearly full", "mmd disk"),
        (replace(DISK, free_bytes=0, holds=("models",)), Level.OK, "0.0 MiB free", ""),
        (replace(DISK, is_read_only=True), Level.FAILED, "mounted read-only (downloads, mmd's", "findmnt /"),
        (replace(DISK, is_read_only=True, holds=("models",)), Level.OK, "/", ""),
        (replace(DISK, kind="nfs4"), Level.WARNING, "network file system (nfs4)", "mmd archive ID DEST"),
    ],
)
def test_disks(disk: DiskSpace, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_disks([disk])
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_disks_of_this_machine(tmp_path: Path) -> None:
    found = read_disks([replace(model(), path=str(tmp_path / "gone/a.gguf"))])
    assert {what for one in found for what in one.holds} == {"downloads", "mmd's records", "mmd's cache", "models"}
    assert all(one.free_bytes <= one.total_bytes for one in found)


# -- folders and sockets

OWN = FolderState("/home/ada/.local/share/mmd", "ada", 0o700, True, True)


@pytest.mark.parametrize(
    ("folder", "state", "says", "hint"),
    [
        (OWN, Level.OK, "belong to you", ""),
        (replace(OWN, mode=0o755), Level.WARNING, "other users can open", "chmod 700 /home/ada/.local/share/mmd"),
        (replace(OWN, mode=0o755, is_private=False), Level.OK, "belong to you", ""),
        (
            replace(OWN, owner="root", is_own=False, is_writable=False),
            Level.FAILED,
            "is not writable: it belongs to root",
            'sudo chown -R "$(id -un):" /home/ada/.local/share/mmd',
        ),
        (replace(OWN, is_writable=False), Level.FAILED, "is not writable", "sudo chown"),
        (replace(OWN, foreign="/home/ada/x"), Level.FAILED, "/home/ada/x belongs to another user", "sudo chown"),
        (
            replace(OWN, foreign="/etc/x", owner="root", is_own=False, is_writable=False, is_written=False),
            Level.OK,
            "belong to you",
            "",
        ),
    ],
)
def test_folders(folder: FolderState, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_folders([folder])
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


@pytest.fixture
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[FolderState]]:
    """The folders, without the download cache: huggingface_hub remembers its path across tests."""
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path / "no-downloads")
    return lambda: list(read_folders())


def test_folders_of_this_user(own_folders: Callable[[], list[FolderState]]) -> None:
    assert own_folders() == []
    paths.make_private(paths.data_dir() / "manifests")
    (folder,) = own_folders()
    assert (folder.path, folder.mode, folder.is_own, folder.foreign) == (str(paths.data_dir()), 0o700, True, "")
    paths.data_dir().chmod(0o755)
    assert own_folders()[0].mode == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_found(own_folders: Callable[[], list[FolderState]]) -> None:
    paths.make_private(paths.data_dir())
    left = paths.data_dir() / "models.json"
    left.touch()
    os.chown(left, 65534, 65534)
    assert own_folders()[0].foreign == str(left)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_beside_mmds_folder_are_ignored(
    own_folders: Callable[[], list[FolderState]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All programs create and remove files in the user's runtime folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    left = tmp_path / "runtime/bus"
    left.touch()
    os.chown(left, 65534, 65534)
    assert [folder.foreign for folder in own_folders()] == [""]


def test_sockets() -> None:
    (diagnosis,) = check_sockets(EngineSockets((), ()))
    assert diagnosis.state is Level.OK
    first, second = check_sockets(EngineSockets(("a",), ("/run/user/1000/mmd-gateway.sock",)))
    assert (first.state, first.hint) == (Level.FAILED, "mmd stop a && mmd activate a")
    assert (second.state, second.hint) == (Level.WARNING, "chmod 600 /run/user/1000/mmd-gateway.sock")


def test_missing_or_open_socket() -> None:
    there = paths.engine_socket("b")
    there.parent.mkdir(parents=True)
    there.touch()
    paths.gateway_socket().touch(mode=0o600)
    assert read_sockets(["a", "b"]) == EngineSockets(("a",), ())
    paths.gateway_socket().chmod(0o666)
    assert read_sockets(["b"]) == EngineSockets((), (str(paths.gateway_socket()),))


# -- ports


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_port_owner_is_found(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as taken, socket.socket(family) as free:
        taken.bind((host, 0))
        taken.listen()
        free.bind((host, 0))
        of = {
            one: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for one in (taken, free)
            for port in [one.getsockname()[1]]
        }
        found = read_port_owners(of.values())
        owner = found[of[taken]]
        assert found[of[free]] is None
        port = taken.getsockname()[1]
        of_both, of_four = read_port_owners([f"[::]:{port}", f"0.0.0.0:{port}"]).values()
    assert owner is not None
    assert owner.pid == os.getpid()
    assert owner.command
    assert of_both == owner
    assert of_four == (owner if family == socket.AF_INET else None)


LONG = "/home/ada/.local/share/pipx/venvs/mmd/with-a-long-name"
FREE = GatewayAddress("127.0.0.1:8000", "mmd.socket", False, False, None)


@pytest.mark.parametrize(
    ("address", "is_installed", "state", "says", "hint"),
    [
        (replace(FREE, is_ours=True, owner=PortOwner("ada", 1, "systemd")), True, Level.OK, "listening on", ""),
        (FREE, False, Level.OK, "is free", ""),
        (FREE, True, Level.FAILED, "mmd.socket does not listen", "mmd install"),
        (replace(FREE, is_masked=True), True, Level.OK, "is free", ""),  # reported by the check of the units
        (
            replace(FREE, owner=PortOwner("ada", 7, "/x/python -P -m mmd gateway")),
            True,
            Level.OK,
            "`mmd gateway` in the foreground (pid 7)",
            "",
        ),
        (
            replace(FREE, owner=PortOwner("ada", 7, f"{LONG}/bin/python {LONG}/bin/mmd gateway")),
            True,
            Level.OK,
            "`mmd gateway` in the foreground (pid 7)",
            "",
        ),
        (
            replace(FREE, owner=PortOwner("ada", 7, f"{LONG}/bin/python -m http.server")),
            True,
            Level.FAILED,
            "in use by /home/ada/.local/share/pipx/venvs/mmd/with-a-long-name/bin/… (pid 7, ada)",
            "kill 7 && mmd install",
        ),
        (
            replace(FREE, owner=PortOwner("ada", 7, "/usr/bin/python3 -m http.server 8000")),
            True,
            Level.FAILED,
            "in use by /usr/bin/python3 -m http.server 8000 (pid 7, ada)",
            "kill 7 && mmd install",
        ),
        (
            replace(FREE, owner=PortOwner("bob")),
            True,
            Level.FAILED,
            "a process of bob",
            "sudo ss -ltnp 'sport = :8000'",
        ),
    ],
)
def test_gateway_addresses(address: GatewayAddress, is_installed: bool, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_addresses([address], is_installed=is_installed)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_gateway_health() -> None:
    assert list(check_health("HTTP/1.1 200 OK")) == []
    (diagnosis,) = check_health("HTTP/1.1 503 Service Unavailable")
    assert diagnosis.state is Level.FAILED


# -- the hub

NO_TLS = (
    "the hub cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
)
PROXIES = {"https": "http://proxy.example:3128"}


@pytest.mark.parametrize(
    ("message", "proxies", "says", "hint"),
    [
        (NO_TLS, {}, "huggingface.co has an untrusted certificate", "curl -vI https://huggingface.co"),
        (
            "… [Errno -2] Name or service not known",
            {},
            "huggingface.co does not resolve: no network",
            "getent hosts hugg",
        ),
        (
            "… [Errno -2] Name or service not known",
            PROXIES,
            "proxy.example does not resolve",
            "getent hosts proxy.example",
        ),
        ("… 407 Proxy Authentication Required", PROXIES, "requires a password", "export HTTPS_PROXY="),
        (
            "the hub cannot be reached: refused",
            PROXIES,
            "refused (through the proxy http://proxy.example:3128)",
            "env | grep",
        ),
        ("Invalid port: ':1'", {"https": "http://[::1"}, "through the proxy http://[::1", "env | grep"),
        ("HF_HUB_OFFLINE is set", {}, "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
    ],
)
def test_hub_error_is_explained(message: str, proxies: dict[str, str], says: str, hint: str) -> None:
    diagnosis = explain_hub_error(failed(message, "unset HF_HUB_OFFLINE"), "https://huggingface.co", proxies)
    assert diagnosis.state is Level.WARNING
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_health_is_asked_under_a_name_that_is_served() -> None:
    """A gateway on 0.0.0.0 refuses requests to the host 0.0.0.0, which no client is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(read_health, f"0.0.0.0:{server.getsockname()[1]}", ())
        connection, _ = server.accept()
        with connection:
            head = connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\nhost: localhost\r\n" in head.lower()
    assert asked.result() == "HTTP/1.1 200 OK"

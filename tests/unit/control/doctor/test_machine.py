"""RAM, disks, folders, ports and the hub, as the doctor sees them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mmd import paths
from mmd.control.doctor import places
from mmd.control.doctor.finding import State, failed
from mmd.control.doctor.hub import explained
from mmd.control.doctor.memory import Ram, judge_ram, read_ram
from mmd.control.doctor.places import Place, Sockets, judge_places, judge_sockets, read_places, read_sockets
from mmd.control.doctor.ports import Listener, ListeningSocket, judge_doors, judge_status, read_listeners
from mmd.control.doctor.storage import FileSystem, judge_file_systems, read_file_systems
from mmd.control.doctor.suspend import SleepLock, judge_suspend
from mmd.control.state.status import Sleeping
from mmd.registry.record import Model
from tests.unit.plan.planned import GIB, facts, model

RAM = Ram(32 * GIB, 20 * GIB, 8 * GIB, 0, 0, ())
SLEEPERS = (Sleeping("a", 1, 4 * GIB, None), Sleeping("b", 1, 9 * GIB, None))
LARGE = model(facts(weights_bytes=40 * GIB), id="large")


@pytest.mark.parametrize(
    ("ram", "models", "sleeping", "has_gpu", "state", "says", "hint"),
    [
        (RAM, (), (), False, State.OK, "20.0 of 32.0 GiB available", ""),
        (RAM, (LARGE,), SLEEPERS, True, State.OK, "a, b asleep with 13.0 GiB", ""),
        (replace(RAM, watchers=("earlyoom",)), (), (), True, State.OK, "earlyoom may end an engine", ""),
        (replace(RAM, swap_used_bytes=3 * GIB), (), (), True, State.OK, "3.0 of 8.0 GiB swap used", ""),
        (replace(RAM, available_bytes=GIB), (), SLEEPERS, True, State.WARNING, "1.0 of 32.0", "mmd stop b"),
        (replace(RAM, available_bytes=GIB), (), (), True, State.WARNING, "1.0 of 32.0", "ps -eo rss"),
        (RAM, (LARGE,), (), False, State.WARNING, "large has 40.0 GiB of weights", "mmd estimate large"),
        (replace(RAM, overcommit=2), (), (), True, State.WARNING, "vm.overcommit_memory is 2", "sudo sysctl"),
    ],
)
def test_ram(
    ram: Ram,
    models: tuple[Model, ...],
    sleeping: tuple[Sleeping, ...],
    has_gpu: bool,
    state: State,
    says: str,
    hint: str,
) -> None:
    (verdict,) = judge_ram(ram, models, sleeping, has_gpu=has_gpu)
    assert verdict.state is state
    assert says in verdict.message
    assert verdict.hint.startswith(hint)


def test_ram_of_this_machine() -> None:
    ram = read_ram()
    assert 0 < ram.available_bytes <= ram.total_bytes
    assert ram.overcommit in (0, 1, 2)


# -- suspending


@pytest.mark.parametrize(
    ("lock", "has_gpu", "state", "says"),
    [
        (None, True, State.OK, "no logind: not followed"),
        (SleepLock(5), True, State.OK, "models leave the GPU first; logind waits 5 s for that"),
        (SleepLock(5, "no lock", "sudo apt install polkitd"), True, State.WARNING, "no lock; answers are cut short"),
        (SleepLock(5, "no lock", "sudo apt install polkitd"), False, State.OK, "models on the CPU stay as they are"),
    ],
)
def test_suspending(lock: SleepLock | None, has_gpu: bool, state: State, says: str) -> None:
    (verdict,) = judge_suspend(lock, has_gpu=has_gpu)
    assert verdict.state is state
    assert says in verdict.message
    assert verdict.hint == (lock.hint if lock and state is State.WARNING else "")


# -- disks

DISK = FileSystem("/", "ext4", 500 * GIB, 100 * GIB, False, ("downloads", "mmd's records", "models"))


@pytest.mark.parametrize(
    ("disk", "state", "says", "hint"),
    [
        (DISK, State.OK, "/: 100.0 GiB free (downloads, mmd's records, models)", ""),
        (replace(DISK, free_bytes=5 * GIB), State.WARNING, "little for a download", "mmd disk"),
        (replace(DISK, free_bytes=5 * GIB, holds=("mmd's records",)), State.OK, "5.0 GiB free", ""),
        (replace(DISK, free_bytes=1000), State.FAILED, "nearly full", "mmd disk"),
        (replace(DISK, free_bytes=0, holds=("models",)), State.OK, "0.0 GiB free", ""),
        (replace(DISK, is_read_only=True), State.FAILED, "cannot be written to (downloads, mmd's", "findmnt /"),
        (replace(DISK, is_read_only=True, holds=("models",)), State.OK, "/", ""),
        (replace(DISK, kind="nfs4"), State.WARNING, "over the network (nfs4)", "mmd archive ID DEST"),
    ],
)
def test_disks(disk: FileSystem, state: State, says: str, hint: str) -> None:
    (verdict,) = judge_file_systems([disk])
    assert verdict.state is state
    assert says in verdict.message
    assert verdict.hint.startswith(hint)


def test_disks_of_this_machine(tmp_path: Path) -> None:
    found = read_file_systems([replace(model(), path=str(tmp_path / "gone/a.gguf"))])
    assert {what for one in found for what in one.holds} == {"downloads", "mmd's records", "mmd's cache", "models"}
    assert all(one.free_bytes <= one.total_bytes for one in found)


# -- folders and sockets

OWN = Place("/home/ada/.local/share/mmd", "ada", 0o700, True, True)


@pytest.mark.parametrize(
    ("place", "state", "says", "hint"),
    [
        (OWN, State.OK, "yours", ""),
        (replace(OWN, mode=0o755), State.WARNING, "others may look into", "chmod 700 /home/ada/.local/share/mmd"),
        (replace(OWN, mode=0o755, is_private=False), State.OK, "yours", ""),
        (
            replace(OWN, owner="root", is_own=False, is_writable=False),
            State.FAILED,
            "cannot be written to: it is root's",
            'sudo chown -R "$(id -un):" /home/ada/.local/share/mmd',
        ),
        (replace(OWN, is_writable=False), State.FAILED, "cannot be written to", "sudo chown"),
        (replace(OWN, strange="/home/ada/x"), State.FAILED, "/home/ada/x is not yours", "sudo chown"),
        (
            replace(OWN, strange="/etc/x", owner="root", is_own=False, is_writable=False, is_kept=False),
            State.OK,
            "yours",
            "",
        ),
    ],
)
def test_folders(place: Place, state: State, says: str, hint: str) -> None:
    (verdict,) = judge_places([place])
    assert verdict.state is state
    assert says in verdict.message
    assert verdict.hint.startswith(hint)


@pytest.fixture
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[Place]]:
    """Without that of downloads, which the hub's library keeps in mind over tests."""
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path / "no-downloads")
    return lambda: list(read_places())


def test_folders_of_this_user(own_places: Callable[[], list[Place]]) -> None:
    assert own_places() == []
    paths.make_private(paths.data_dir() / "manifests")
    (place,) = own_places()
    assert (place.path, place.mode, place.is_own, place.strange) == (str(paths.data_dir()), 0o700, True, "")
    paths.data_dir().chmod(0o755)
    assert own_places()[0].mode == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_somebody_else_has_left_is_found(own_places: Callable[[], list[Place]]) -> None:
    paths.make_private(paths.data_dir())
    left = paths.data_dir() / "models.toml"
    left.touch()
    os.chown(left, 65534, 65534)
    assert own_places()[0].strange == str(left)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_whose_files_lie_beside_those_of_mmd_is_not_asked(
    own_places: Callable[[], list[Place]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the runtime folder is made and removed by everybody, all the time."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    left = tmp_path / "runtime/bus"
    left.touch()
    os.chown(left, 65534, 65534)
    assert [place.strange for place in own_places()] == [""]


def test_sockets() -> None:
    (verdict,) = judge_sockets(Sockets((), ()))
    assert verdict.state is State.OK
    first, second = judge_sockets(Sockets(("a",), ("/run/user/1000/mmd-gateway.sock",)))
    assert (first.state, first.hint) == (State.FAILED, "mmd stop a && mmd activate a")
    assert (second.state, second.hint) == (State.WARNING, "chmod 600 /run/user/1000/mmd-gateway.sock")


def test_a_socket_that_is_gone_or_open_to_others() -> None:
    there = paths.engine_socket("b")
    there.parent.mkdir(parents=True)
    there.touch()
    paths.gateway_socket().touch(mode=0o600)
    assert read_sockets(["a", "b"]) == Sockets(("a",), ())
    paths.gateway_socket().chmod(0o666)
    assert read_sockets(["b"]) == Sockets((), (str(paths.gateway_socket()),))


# -- ports


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_listens_is_found(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as taken, socket.socket(family) as free:
        taken.bind((host, 0))
        taken.listen()
        free.bind((host, 0))
        of = {
            one: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for one in (taken, free)
            for port in [one.getsockname()[1]]
        }
        found = read_listeners(of.values())
        listener = found[of[taken]]
        assert found[of[free]] is None
        port = taken.getsockname()[1]
        of_both, of_four = read_listeners([f"[::]:{port}", f"0.0.0.0:{port}"]).values()
    assert listener is not None
    assert listener.pid == os.getpid()
    assert listener.command
    assert of_both == listener
    assert of_four == (listener if family == socket.AF_INET else None)


LONG = "/home/ada/.local/share/pipx/venvs/mmd/with-a-long-name"
FREE = ListeningSocket("127.0.0.1:8000", "mmd.socket", False, False, None)


@pytest.mark.parametrize(
    ("door", "is_installed", "state", "says", "hint"),
    [
        (replace(FREE, is_ours=True, listener=Listener("ada", 1, "systemd")), True, State.OK, "listens", ""),
        (FREE, False, State.OK, "is free", ""),
        (FREE, True, State.FAILED, "mmd.socket does not listen", "mmd install"),
        (replace(FREE, is_masked=True), True, State.OK, "is free", ""),  # which the check of the units has said
        (
            replace(FREE, listener=Listener("ada", 7, "/x/python -P -m mmd gateway")),
            True,
            State.OK,
            "mmd gateway in the foreground (pid 7)",
            "",
        ),
        (
            replace(FREE, listener=Listener("ada", 7, f"{LONG}/bin/python {LONG}/bin/mmd gateway")),
            True,
            State.OK,
            "mmd gateway in the foreground (pid 7)",
            "",
        ),
        (
            replace(FREE, listener=Listener("ada", 7, f"{LONG}/bin/python -m http.server")),
            True,
            State.FAILED,
            "taken by /home/ada/.local/share/pipx/venvs/mmd/with-a-long-name/bin/… (pid 7, ada)",
            "kill 7 && mmd install",
        ),
        (
            replace(FREE, listener=Listener("ada", 7, "/usr/bin/python3 -m http.server 8000")),
            True,
            State.FAILED,
            "taken by /usr/bin/python3 -m http.server 8000 (pid 7, ada)",
            "kill 7 && mmd install",
        ),
        (
            replace(FREE, listener=Listener("bob")),
            True,
            State.FAILED,
            "a process of bob's",
            "sudo ss -ltnp 'sport = :8000'",
        ),
    ],
)
def test_the_gateways_addresses(door: ListeningSocket, is_installed: bool, state: State, says: str, hint: str) -> None:
    (verdict,) = judge_doors([door], is_installed=is_installed)
    assert verdict.state is state
    assert says in verdict.message
    assert verdict.hint.startswith(hint)


def test_the_gateways_status() -> None:
    assert list(judge_status("HTTP/1.1 200 OK")) == []
    (verdict,) = judge_status("HTTP/1.1 503 Service Unavailable")
    assert verdict.state is State.FAILED


# -- the hub

NO_TLS = (
    "the hub cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
)
PROXIES = {"https": "http://proxy.example:3128"}


@pytest.mark.parametrize(
    ("message", "proxies", "says", "hint"),
    [
        (NO_TLS, {}, "huggingface.co shows a certificate that is not trusted", "curl -vI https://huggingface.co"),
        ("… [Errno -2] Name or service not known", {}, "huggingface.co is not found: no network", "getent hosts hugg"),
        ("… [Errno -2] Name or service not known", PROXIES, "proxy.example is not found", "getent hosts proxy.example"),
        ("… 407 Proxy Authentication Required", PROXIES, "wants a password", "export HTTPS_PROXY="),
        (
            "the hub cannot be reached: refused",
            PROXIES,
            "refused, by the proxy http://proxy.example:3128",
            "env | grep",
        ),
        ("Invalid port: ':1'", {"https": "http://[::1"}, "by the proxy http://[::1", "env | grep"),
        ("HF_HUB_OFFLINE is set", {}, "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
    ],
)
def test_why_the_hub_does_not_answer(message: str, proxies: dict[str, str], says: str, hint: str) -> None:
    verdict = explained(failed(message, "unset HF_HUB_OFFLINE"), "https://huggingface.co", proxies)
    assert verdict.state is State.WARNING
    assert says in verdict.message
    assert verdict.hint.startswith(hint)

"""Fixtures of all rings: an own home for every test, and one private user manager for those that need it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import install_fake_llama_server
from tests.fakes.nvml import library_folder
from tests.user_manager import UserManager, user_manager

pytest_plugins = ("tests.event_loop", "tests.fakes.hub.fixture")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """A test leaves no thread and no descriptor behind."""
    threads_before, open_before = set(threading.enumerate()), _descriptors()
    yield
    for thread in set(threading.enumerate()) - threads_before:
        thread.join(2)  # asyncio's watcher of a child may be on its last line when the child has been awaited
        assert not thread.is_alive(), thread
    leaked = _descriptors() - open_before
    assert not leaked, [Path(f"/proc/self/fd/{number}").readlink() for number in leaked]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own: no test touches the home of its user."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("DATA_HOME", "CONFIG_HOME", "CACHE_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.delenv(f"XDG_{name}", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "no-runtime"))
    return home


@pytest.fixture(scope="session")
def shared_manager() -> Iterator[UserManager]:
    with user_manager() as manager:
        yield manager


@pytest.fixture
def systemd(shared_manager: UserManager, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserManager]:
    """A running user manager without any unit of mmd, seen by this process and by those it starts."""
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, shared_manager.environment[name])
    yield shared_manager
    shared_manager.systemctl("kill", "--signal=SIGKILL", "mmd-model@*.service")
    shared_manager.systemctl("stop", "mmd-*", "mmd.*")  # no names: systemd 262 stops none where one is not there
    shared_manager.systemctl("reset-failed")


@pytest.fixture
def fake_llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `llama-server` on PATH that misbehaves on command."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = install_fake_llama_server(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return program


@pytest.fixture(scope="session")
def nvml_folder() -> Path:
    """A folder with a `libnvidia-ml.so.1` that says what the file named by MMD_FAKE_NVML says."""
    return library_folder()


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}  # noqa: PTH208 a path object a number buys nothing

"""Checks of the user manager, lingering and control groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.doctor.cgroups import ControlGroups, check_cgroups, read_cgroups
from mmd.control.doctor.diagnosis import Level
from mmd.control.doctor.lingering import Lingering, check_lingering
from mmd.control.doctor.manager import (
    LoginEnvironment,
    ManagerState,
    borrowed_runtime_error,
    check_manager,
    explain_unreachable,
    read_login_environment,
    read_manager,
)
from mmd.errors import ManagerUnreachable

ERROR = ManagerUnreachable("no systemd user manager answers: because", hint="systemctl --user status")
# A complete login; each case removes one thing.
HERE = LoginEnvironment(
    user="ada", uid=1000, is_booted=True, init="systemd", runtime="/run/user/1000", runtime_owner="ada",
    has_private_socket=True, has_bus=True, bus_address="", sudo_user="",
)  # fmt: skip
NO_RUNTIME = replace(HERE, runtime_owner=None, has_private_socket=False, has_bus=False)
AS_ROOT = replace(NO_RUNTIME, user="root", uid=0, runtime="/run/user/0")


@pytest.mark.parametrize(
    ("here", "says", "hint"),
    [
        (replace(HERE, bus_address="unix:path=/tmp/dbus-1"), "a bus without systemd", "unset DBUS_SESSION_BUS_ADDRESS"),
        (replace(AS_ROOT, is_booted=False, init="bash"), "process 1 is bash, not systemd (a container?)", "ps -p 1"),
        (replace(AS_ROOT, sudo_user="ada"), "sudo does not log in", "mmd doctor   # as ada"),
        (NO_RUNTIME, "/run/user/1000 does not exist: ada is not logged in", "sudo loginctl enable-linger ada"),
        (AS_ROOT, "/run/user/0 does not exist", "loginctl enable-linger root && export XDG_RUNTIME_DIR=/run/user/0"),
        (replace(HERE, has_bus=False), "without a session bus", "sudo apt install dbus-user-session"),
        (
            replace(HERE, has_bus=False, has_private_socket=False),
            "does not run: /run/user/1000/systemd/private does not exist",
            "sudo systemctl restart user@1000.service",
        ),
        (HERE, "because", "systemctl --user status"),
    ],
)
def test_reason_is_named(here: LoginEnvironment, says: str, hint: str) -> None:
    why = explain_unreachable(here, ERROR)
    assert says in why.message
    assert why.hint.startswith(hint)


def test_manager_of_another_user_is_refused() -> None:
    """Root could connect, and used to work on that user's units with root's models."""
    assert not HERE.is_borrowed
    assert not NO_RUNTIME.is_borrowed
    here = replace(HERE, user="root", uid=0)
    assert here.is_borrowed
    assert "/run/user/1000, a folder of ada: this shell became root by su" in borrowed_runtime_error(here).message


def test_missing_manager_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "no-runtime"
    assert read_login_environment().runtime_owner is None
    with pytest.raises(ManagerUnreachable, match=r"does not exist|not systemd|sudo does not"):
        read_manager()
    runtime.mkdir()
    here = read_login_environment()
    assert (here.runtime, here.runtime_owner, here.has_bus) == (str(runtime), here.user, False)


def test_hidden_process_1_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert read_login_environment().init == "another program"


@pytest.mark.parametrize(
    ("manager", "state", "says"),
    [
        (ManagerState("257.9-1~deb13u1", "/x", ()), Level.OK, "systemd 257.9-1~deb13u1 answers"),
        (ManagerState("249.11-0ubuntu3", "/x", ()), Level.WARNING, "mmd is tested with 252 and newer only"),
        (ManagerState("257", "/x", (), asked_by="ada"), Level.WARNING, "about root, not ada"),
        (ManagerState("257", "/x", (), is_named=False), Level.WARNING, "XDG_RUNTIME_DIR is not set"),
    ],
)
def test_manager_diagnosis(manager: ManagerState, state: Level, says: str) -> None:
    (diagnosis,) = check_manager(manager)
    assert diagnosis.state is state
    assert says in diagnosis.message


@pytest.mark.parametrize(
    ("command", "lingers", "state"),
    [
        ("loginctl enable-linger ada", True, Level.OK),
        ("loginctl enable-linger ada", False, Level.WARNING),
        (None, False, Level.OK),
    ],
)
def test_lingering(command: str | None, lingers: bool, state: Level) -> None:
    (diagnosis,) = check_lingering(Lingering(lingers, command))
    assert diagnosis.state is state
    assert diagnosis.hint == ((command or "") if state is Level.WARNING else "")


def controllers(folder: Path, words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(words)


def test_cgroup_v2(tmp_path: Path) -> None:
    controllers(tmp_path, "cpu memory pids\n")
    controllers(tmp_path / "user.slice/user@1000.service", "memory pids\n")
    assert read_cgroups("/user.slice/user@1000.service", tmp_path) == ControlGroups(True, ("memory", "pids"))


def test_cgroup_v1(tmp_path: Path) -> None:
    assert read_cgroups("/user.slice/user@1000.service", tmp_path) == ControlGroups(False, ())


def test_cgroup_v1_and_v2(tmp_path: Path) -> None:
    controllers(tmp_path / "unified/mmd", "")
    assert read_cgroups("/mmd", tmp_path) == ControlGroups(False, ())


@pytest.mark.parametrize(
    ("groups", "state", "says"),
    [
        (ControlGroups(True, ("memory", "pids")), Level.OK, "memory, pids"),
        (ControlGroups(True, ("pids",)), Level.WARNING, "memory controller is not delegated"),
        (ControlGroups(False, ()), Level.WARNING, "cgroup v1"),
    ],
)
def test_memory_controller_is_required(groups: ControlGroups, state: Level, says: str) -> None:
    (diagnosis,) = check_cgroups(groups)
    assert diagnosis.state is state
    assert says in diagnosis.message

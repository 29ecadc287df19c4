"""Why there is no user manager, and what systemd gives a user that has one."""

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
# A login that has all: of what is missing in each case, one thing.
HERE = LoginEnvironment(
    user="ada", uid=1000, is_booted=True, init="systemd", runtime="/run/user/1000", runtime_owner="ada",
    has_private_socket=True, has_bus=True, bus_address="", sudo_user="",
)  # fmt: skip
NO_RUNTIME = replace(HERE, runtime_owner=None, has_private_socket=False, has_bus=False)
AS_ROOT = replace(NO_RUNTIME, user="root", uid=0, runtime="/run/user/0")


@pytest.mark.parametrize(
    ("here", "says", "hint"),
    [
        (replace(HERE, bus_address="unix:path=/tmp/dbus-1"), "another bus", "unset DBUS_SESSION_BUS_ADDRESS"),
        (replace(AS_ROOT, is_booted=False, init="bash"), "bash does (a container?)", "ps -p 1"),
        (replace(AS_ROOT, sudo_user="ada"), "sudo does not log in", "mmd doctor   # as ada"),
        (NO_RUNTIME, "there is no /run/user/1000: ada is not logged in", "sudo loginctl enable-linger ada"),
        (AS_ROOT, "there is no /run/user/0", "loginctl enable-linger root && export XDG_RUNTIME_DIR=/run/user/0"),
        (replace(HERE, has_bus=False), "without a session bus", "sudo apt install dbus-user-session"),
        (
            replace(HERE, has_bus=False, has_private_socket=False),
            "does not run: there is no /run/user/1000/systemd/private",
            "sudo systemctl restart user@1000.service",
        ),
        (HERE, "because", "systemctl --user status"),
    ],
)
def test_the_reason_is_named(here: LoginEnvironment, says: str, hint: str) -> None:
    why = explain_unreachable(here, ERROR)
    assert says in why.message
    assert why.hint.startswith(hint)


def test_a_manager_of_somebody_else_is_not_taken_for_ones_own() -> None:
    """Root is let in, and would have worked on somebody else's units with root's models."""
    assert not HERE.is_borrowed
    assert not NO_RUNTIME.is_borrowed
    here = replace(HERE, user="root", uid=0)
    assert here.is_borrowed
    assert "/run/user/1000, which is ada's: this shell became root by su" in borrowed_runtime_error(here).message


def test_one_that_is_not_there_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "no-runtime"
    assert read_login_environment().runtime_owner is None
    with pytest.raises(ManagerUnreachable, match=r"there is no |systemd does not run|sudo does not"):
        read_manager()
    runtime.mkdir()
    here = read_login_environment()
    assert (here.runtime, here.runtime_owner, here.has_bus) == (str(runtime), here.user, False)


def test_that_process_1_is_hidden_says_nothing_of_the_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert read_login_environment().init == "another program"


@pytest.mark.parametrize(
    ("manager", "state", "says"),
    [
        (ManagerState("257.9-1~deb13u1", "/x", ()), Level.OK, "systemd 257.9-1~deb13u1 answers"),
        (ManagerState("249.11-0ubuntu3", "/x", ()), Level.WARNING, "never tried with one before 252"),
        (ManagerState("257", "/x", (), asked_by="ada"), Level.WARNING, "about root, not about ada"),
        (ManagerState("257", "/x", (), is_named=False), Level.WARNING, "XDG_RUNTIME_DIR is not set"),
    ],
)
def test_a_manager_that_answers(manager: ManagerState, state: Level, says: str) -> None:
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


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    controllers(tmp_path, "cpu memory pids\n")
    controllers(tmp_path / "user.slice/user@1000.service", "memory pids\n")
    assert read_cgroups("/user.slice/user@1000.service", tmp_path) == ControlGroups(True, ("memory", "pids"))


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    assert read_cgroups("/user.slice/user@1000.service", tmp_path) == ControlGroups(False, ())


def test_control_groups_of_both_versions(tmp_path: Path) -> None:
    controllers(tmp_path / "unified/mmd", "")
    assert read_cgroups("/mmd", tmp_path) == ControlGroups(False, ())


@pytest.mark.parametrize(
    ("groups", "state", "says"),
    [
        (ControlGroups(True, ("memory", "pids")), Level.OK, "memory, pids"),
        (ControlGroups(True, ("pids",)), Level.WARNING, "memory is not delegated"),
        (ControlGroups(False, ()), Level.WARNING, "version 1"),
    ],
)
def test_memory_is_wanted_of_control_groups(groups: ControlGroups, state: Level, says: str) -> None:
    (diagnosis,) = check_cgroups(groups)
    assert diagnosis.state is state
    assert says in diagnosis.message

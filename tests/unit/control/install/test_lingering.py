"""Lingering: the command for this machine, and silence once it was run."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mmd.cli.lingering import say_how_to_linger
from mmd.control.install import lingering
from mmd.control.install.lingering import linger_command, lingers

UNKNOWN_UID = 4_000_000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with logind and polkit; the user is ada."""
    for constant, name in (("_LINGERING", "linger"), ("_LOGIND", "seats"), ("_POLKIT", "polkit")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(lingering, constant, tmp_path / name)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    ada = pwd.struct_passwd(("ada", "x", 1000, 1000, "", "/home/ada", "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwuid", {1000: ada, 0: pwd.getpwuid(0)}.__getitem__)
    return tmp_path


def test_polkit_lets_users_enable_it(machine: Path) -> None:
    assert not lingers()
    assert linger_command() == "loginctl enable-linger ada"


def test_user_needs_sudo_without_polkit(machine: Path) -> None:
    (machine / "polkit").rmdir()
    assert linger_command() == "sudo loginctl enable-linger ada"


def test_root_needs_no_sudo(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "polkit").rmdir()
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert linger_command() == "loginctl enable-linger root"


def test_no_command_without_logind(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "seats").rmdir()
    assert linger_command() is None
    say_how_to_linger()
    assert "systemd-logind does not start" in capsys.readouterr().err


def test_no_command_for_a_user_without_name(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example in a container started with a plain uid."""
    monkeypatch.setattr(os, "getuid", lambda: UNKNOWN_UID)
    assert not lingers()
    assert linger_command() is None


def test_no_advice_once_enabled(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_how_to_linger()
    assert capsys.readouterr().err == "To start it without a login: loginctl enable-linger ada\n"
    (machine / "linger/ada").touch()
    say_how_to_linger()
    assert capsys.readouterr().err == ""

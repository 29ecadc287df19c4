"""Lingering: the one command that fits the machine, and no word where it was given."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mmd.cli.lingering import say_how_it_lingers
from mmd.control.install import lingering
from mmd.control.install.lingering import linger_command, lingers

UNKNOWN_UID = 4_000_000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with logind and polkit, seen by a user named ada."""
    for constant, name in (("_LINGERING", "linger"), ("_LOGIND", "seats"), ("_POLKIT", "polkit")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(lingering, constant, tmp_path / name)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    ada = pwd.struct_passwd(("ada", "x", 1000, 1000, "", "/home/ada", "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwuid", {1000: ada, 0: pwd.getpwuid(0)}.__getitem__)
    return tmp_path


def test_user_may_have_it_for_themselves_where_polkit_says_so(machine: Path) -> None:
    assert not lingers()
    assert linger_command() == "loginctl enable-linger ada"


def test_user_needs_root_where_there_is_no_polkit(machine: Path) -> None:
    (machine / "polkit").rmdir()
    assert linger_command() == "sudo loginctl enable-linger ada"


def test_root_needs_nobody(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "polkit").rmdir()
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert linger_command() == "loginctl enable-linger root"


def test_without_logind_there_is_no_such_command(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "seats").rmdir()
    assert linger_command() is None
    say_how_it_lingers()
    assert "systemd-logind does not start" in capsys.readouterr().err


def test_user_without_a_name_has_no_such_command(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was started with a number of its own."""
    monkeypatch.setattr(os, "getuid", lambda: UNKNOWN_UID)
    assert not lingers()
    assert linger_command() is None


def test_nothing_is_said_after_the_command(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_how_it_lingers()
    assert capsys.readouterr().err == "To have it without logging in: loginctl enable-linger ada\n"
    (machine / "linger/ada").touch()
    say_how_it_lingers()
    assert capsys.readouterr().err == ""

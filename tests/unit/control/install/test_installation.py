"""Tell whether the units start the mmd that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmd.control.install.inspection import is_this_mmd


def test_packaged_program_is_this_mmd_if_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/usr/bin/mmd links into the package's virtual environment, whose Python links back to /usr/bin."""
    private, public = tmp_path / "lib/mmd/bin", tmp_path / "bin"
    private.mkdir(parents=True)
    public.mkdir()
    (private / "mmd").touch()
    (private / "python3").symlink_to(sys.executable)
    (public / "mmd").symlink_to(private / "mmd")
    assert not is_this_mmd(str(public / "mmd"))
    monkeypatch.setattr(sys, "executable", str(private / "python3"))
    assert is_this_mmd(str(public / "mmd"))


def test_only_the_running_python_is_this_mmd() -> None:
    assert is_this_mmd(sys.executable)
    assert not is_this_mmd("/opt/mmd/bin/python3")
    assert not is_this_mmd("")  # no unit

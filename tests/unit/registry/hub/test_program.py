"""Hints name an `hf` that can be pasted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmd.registry.hub.program import hf


@pytest.fixture
def own_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the Python that runs mmd, which is not on PATH."""
    folder = tmp_path / "bin of mmd"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return folder


def test_one_that_only_mmd_has_is_named_by_its_path(own_bin: Path) -> None:
    make_program(own_bin / "hf")
    assert hf() == f"'{own_bin}/hf'"


def test_one_on_path_is_named_as_one_types_it(own_bin: Path, tmp_path: Path) -> None:
    make_program(own_bin / "hf")
    make_program(tmp_path / "path/hf")
    assert hf() == "hf"


def test_without_any_the_hint_names_what_to_install(own_bin: Path) -> None:
    assert hf() == "hf"


def make_program(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o755)

"""Removing what a killed user manager has left behind in the ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmd.control.lifecycle.leftovers import remove_leftovers
from mmd.paths import runtime_dir
from mmd.plan.lease import LeasePair
from mmd.plan.residency import Pair, UnitState
from mmd.units.watch import UnitStates

LOADED = UnitState("active", "exited", loaded=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("gone", "gone~gpu", "awake~gpu", "asleep", "lease@job~gpu", "lease@old~gpu", ".hidden"):
        (runtime_dir() / name).mkdir(parents=True)
        (runtime_dir() / name / "held").touch()
        os.utime(runtime_dir() / name, (0, 0))
    (runtime_dir() / "gone~size").touch()
    return runtime_dir()


def states() -> UnitStates:
    pairs = {"awake": Pair(token=LOADED), "asleep": Pair(engine=LOADED), "gone": Pair()}
    return UnitStates(pairs, {"job": LeasePair(UnitState(), LOADED)})


def test_only_folders_without_a_unit_are_removed(folder: Path) -> None:
    remove_leftovers(states())
    assert sorted(one.name for one in folder.iterdir()) == [
        ".hidden",
        "asleep",
        "awake~gpu",
        "gone~size",
        "lease@job~gpu",
    ]


def test_new_folder_without_a_unit_stays(folder: Path) -> None:
    """The units of a planner that was killed just after its call appeared after they were listed."""
    os.utime(folder / "gone~gpu")
    remove_leftovers(states())
    assert (folder / "gone~gpu").exists()
    assert not (folder / "gone").exists()


def test_folders_that_cannot_be_removed_are_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    remove_leftovers(states())
    assert f"{folder / 'gone'} cannot be removed: Permission denied" in caplog.text


def test_no_runtime_folder_has_no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    remove_leftovers(states())

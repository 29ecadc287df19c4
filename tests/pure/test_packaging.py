"""What packagers take from the tree is what the program itself says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import mmd
from mmd.units.static import UNITS

ROOT = Path(__file__).parents[2]


def test_every_unit_file_is_installed_and_no_other() -> None:
    assert {path.name for path in (ROOT / "units").iterdir()} == set(UNITS)


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == mmd.__version__

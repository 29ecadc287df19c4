"""What packagers take from the tree is what the program itself says."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmd
from mmd.units.static import UNITS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_those_of_the_program(shell: str) -> None:
    environment = os.environ | {"_MMD_COMPLETE": f"{shell}_source"}
    code = "from mmd.cli import main; main()"
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=30)
    assert made.stdout == (ROOT / f"packaging/completions/mmd.{shell}").read_bytes()


def test_every_unit_file_is_installed_and_no_other() -> None:
    assert {path.name for path in (ROOT / "units").iterdir()} == set(UNITS)


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == mmd.__version__

"""The files for packagers agree with the program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import mmd
from mmd.settings import read_settings
from mmd.units.unit_files import UNITS, drop_in_text

ROOT = Path(__file__).parents[2]


def test_every_unit_file_is_installed_and_no_other() -> None:
    assert {path.name for path in (ROOT / "units").iterdir()} == set(UNITS)


def test_package_carries_whole_units(tmp_path: Path) -> None:
    """Python without site packages, as in the chroot of a build."""
    command = [sys.executable, "-I", "-S", str(ROOT / "packaging/render_units.py"), str(tmp_path / "user")]
    subprocess.run(command, check=True, timeout=30)
    texts = {path.name: path.read_text("utf-8") for path in (tmp_path / "user").iterdir()}
    assert texts.keys() == set(UNITS)
    assert "ExecStart=/usr/bin/mmd gateway\n" in texts["mmd.service"]
    assert "ExecStart=/usr/bin/mmd boot\n" in texts["mmd-boot.service"]
    for text in texts.values():
        assert not re.search(r"@[A-Z]+@|^Environment=", text, re.MULTILINE)


def test_units_listen_where_the_settings_do_by_default() -> None:
    """Empty settings need no drop-in."""
    settings = read_settings()
    addresses = {
        "mmd.socket": settings.gateway.listen,
        "mmd-embedding.socket": settings.gateway.embedding_listen,
    }
    for name in addresses:
        assert drop_in_text(name, addresses) is None
        assert drop_in_text(name, {name: "127.0.0.1:1"}) is not None


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == mmd.__version__

"""mmd.spec agrees with the tree; packaging/build-rpm.sh builds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mmd.units.unit_files import ENABLED, TUNNEL, UNITS

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "packaging/rpm/mmd.spec"
FROM_THE_TREE = ("packaging/render_units.py", "packaging/user-managers")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def listed() -> list[str]:
    """Return the lines of %files."""
    return SPEC.read_text("utf-8").partition("\n%files\n")[2].splitlines()


def expanded(*words: str) -> str:
    """Return the spec as rpm reads it, with the macros of a Fedora."""
    rpmspec = shutil.which("rpmspec") or pytest.skip("there is no rpmspec on PATH: sudo apt install rpm")
    command: list[str | Path] = [rpmspec, f"--load={ROOT}/tests/fedora.macros", *words, SPEC]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=30)
    assert not done.stderr
    return done.stdout


def test_version_and_requirements_are_those_of_the_project() -> None:
    text = SPEC.read_text("utf-8")
    assert f"\nVersion:        {PYPROJECT['project']['version']}\n" in text
    for requirement in PYPROJECT["build-system"]["requires"]:
        name, version = requirement.split(">=")
        assert f"\nBuildRequires:  python3-{name} >= {version}\n" in text


def test_it_packs_every_unit_and_what_the_wheel_has_below_share() -> None:
    shared = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"].values()
    below_share = {f"%{{_datadir}}/{path.removeprefix('share/')}" for path in shared} - {"%{_datadir}/mmd/units"}
    packed = {line.removesuffix("*").replace("%{_mandir}", "%{_datadir}/man") for line in listed()}
    assert {line for line in packed if line.startswith("%{_datadir}")} == below_share
    assert {line for line in packed if line.startswith("%{_userunitdir}")} == {
        f"%{{_userunitdir}}/{name}" for name in UNITS
    }


def test_the_files_that_it_takes_from_the_tree_are_there() -> None:
    documents = [name for line in listed() if re.match("%(license|doc) ", line) for name in line.split()[1:]]
    assert documents
    for name in (*documents, *FROM_THE_TREE, "constraints.txt", "packaging/build-rpm.sh"):
        assert (ROOT / name).is_file(), name
    assert all(name in SPEC.read_text("utf-8") for name in FROM_THE_TREE)


def test_rpm_understands_it() -> None:
    assert expanded("-q", "--qf", "%{name} %{license}") == (
        "mmd MIT AND Apache-2.0 AND BSD-3-Clause AND MPL-2.0 AND PSF-2.0"
    )
    assert not re.search(r"%(\{|_|py_|systemd_)", expanded("-P").partition("\n%install\n")[2])


def test_an_upgrade_touches_no_unit_but_the_gateway() -> None:
    """Models survive an upgrade: only a final removal may name the slice that they are in."""
    done = re.findall(r"systemd-update-helper (\S+) (.*); fi", expanded("-P"))
    assert [(verb, set(units.split())) for verb, units in done] == [
        ("install-user-units", {*ENABLED, "mmd.service"}),
        ("remove-user-units", {*UNITS} - {"mmd.slice", TUNNEL}),
        ("remove-user-units", {"mmd.slice"}),
        ("mark-restart-user-units", {"mmd.service"}),
    ]


def test_removal_stops_every_tunnel() -> None:
    (before, after) = re.findall(r"^(.*)/usr/lib/mmd/user-managers stop (.*)$", expanded("-P"), re.MULTILINE)[0]
    assert (before, after) == ("[ $1 -ne 0 ] || ", "'mmd-tunnel@*.service'")

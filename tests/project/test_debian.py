"""packaging/debian agrees with the tree: versions, files, units, and the bundled packages."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmd.units.names import SLICE
from mmd.units.unit_files import UNITS

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging/debian"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_version_is_that_of_the_project() -> None:
    newest = (DEBIAN / "changelog").read_text("utf-8").partition("\n")[0]
    assert re.fullmatch(rf"mmd \({re.escape(PROJECT['version'])}-\d+\) unstable; urgency=\w+", newest)


def test_every_file_that_is_installed_is_there() -> None:
    patterns = [
        line.split()[0]
        for name in ("mmd.install", "mmd.manpages")
        for line in (DEBIAN / name).read_text("utf-8").splitlines()
    ]
    places = [re.sub("^debian/", "packaging/debian/", pattern) for pattern in patterns]
    assert places
    assert [place for place in places if not list(ROOT.glob(place))] == []


def test_copyright_covers_what_is_bundled_and_no_more() -> None:
    told = re.findall(r"^Files: debian/wheels/(\w+)-\*$", (DEBIAN / "copyright").read_text("utf-8"), re.MULTILINE)
    assert told == sorted(told)
    assert set(told) == bundled()


def test_bundled_versions_are_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {in_a_file_name(pin.partition("==")[0]) for pin in pins if "==" in pin}
    assert bundled() <= pinned


def test_removal_stops_every_unit_and_the_models_last() -> None:
    """The gateway would restart them."""
    script = (DEBIAN / "mmd.prerm").read_text("utf-8").replace("\\\n", "")
    stopped = [set(shlex.split(units)) for units in re.findall(r"user-managers stop (.*)", script)]
    assert stopped[-1] == {SLICE}
    assert set(UNITS) <= {unit.replace("@*", "@") for units in stopped for unit in units}


def test_what_the_build_needs_is_installed_by_make_deb() -> None:
    control = (DEBIAN / "control").read_text("utf-8")
    build_depends = re.findall(
        r"^ ([a-z0-9-]+)", control.partition("Build-Depends:")[2].partition("Standards")[0], re.MULTILINE
    )
    asked_for = (ROOT / "contrib/debian-packages.sh").read_text("utf-8")
    wanted = {name.removesuffix("-compat") for name in build_depends} - {"python3"}
    assert wanted
    assert [name for name in sorted(wanted) if f"lacking {name} " not in asked_for] == []


@pytest.mark.parametrize("script", ["debian/mmd.postinst", "debian/mmd.prerm", "user-managers"])
def test_maintainer_scripts_are_shell(script: str) -> None:
    command = ["sh", "-n", str(DEBIAN.parent / script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


def bundled() -> set[str]:
    """Return the distributions in the package, by the names of their wheels' files."""
    found: set[str] = set()
    left = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["embedded"])]
    while left:
        requirement = left.pop()
        name = in_a_file_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        needed = map(Requirement, distribution(requirement.name).requires or ())
        extras = requirement.extras or {""}
        left += [one for one in needed if not one.marker or any(one.marker.evaluate({"extra": x}) for x in extras)]
    return found


def in_a_file_name(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()

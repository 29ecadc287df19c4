"""The wheel and the sdist: their contents, and a wheel built from the sdist is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import mmd
from tests.built import ROOT, build

NAME = f"mmd-{mmd.__version__}"
DATA = PurePosixPath(f"{NAME}.data/data/share")
COMPLETIONS = {
    "bash-completion/completions/mmd": "mmd.bash",
    "zsh/site-functions/_mmd": "mmd.zsh",
    "fish/vendor_completions.d/mmd.fish": "mmd.fish",
}
# Left behind by builds and tests.
LEFT_BEHIND = ("__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "mmd.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


def inside(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def test_wheel_has_the_package_whole_and_no_other(wheel: Path) -> None:
    code = {name for name in inside(wheel) if not name.startswith(NAME)}
    assert code == files_below(ROOT / "mmd")


def test_wheel_carries_what_lies_below_share(wheel: Path) -> None:
    sources = {f"mmd/units/{path.name}": path for path in (ROOT / "units").iterdir()}
    sources |= {name: ROOT / "packaging/completions" / source for name, source in COMPLETIONS.items()}
    sources |= {f"man/man{path.suffix[1]}/{path.name}": path for path in (ROOT / "packaging/man").iterdir()}
    data = {name: content for name, content in inside(wheel).items() if ".data/" in name}
    assert data == {f"{DATA}/{name}": path.read_bytes() for name, path in sources.items()}


def test_every_kind_of_file_below_share_is_there(wheel: Path) -> None:
    """The test above would pass with an empty folder."""
    names = set(inside(wheel))
    wanted = ("mmd/units/mmd.service", "man/man1/mmd.1", "man/man5/mmd.toml.5", "man/man7/mmd-units.7", *COMPLETIONS)
    assert {f"{DATA}/{name}" for name in wanted} <= names


def test_sdist_holds_the_tree_and_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """It contains the tests and all their files: `make test` runs in the unpacked tree."""
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    unpacked = tmp_path / NAME
    assert not [path for path in unpacked.rglob("*") if path.name in LEFT_BEHIND]
    for folder in ("mmd", "units", "packaging", "tests", "contrib"):
        assert {path.relative_to(unpacked).as_posix() for path in (unpacked / folder).rglob("*") if path.is_file()} == (
            files_below(ROOT / folder)
        )
    for name in (
        "LICENSE",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "constraints.txt",
    ):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    assert build("wheel", tmp_path / "again", unpacked).read_bytes() == wheel.read_bytes()


def test_units_are_found_wherever_pip_puts_them(wheel: Path, tmp_path: Path) -> None:
    """They were looked for below sys.prefix, which is wrong for `pip install --user` and Debian's /usr/local."""
    # Without --ignore-installed pip removes the mmd that runs these tests.
    words = ["install", "--quiet", "--ignore-installed", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *words, f"--prefix={tmp_path}", wheel], check=True, timeout=50)
    (packages,) = tmp_path.glob("lib/python3*/site-packages")
    code = "from mmd.units.unit_files import unit_text; print(unit_text('mmd.slice', 'mmd'), end='')"
    environment = os.environ | {"PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == (ROOT / "units/mmd.slice").read_text()

"""This checkout on a machine, and Debian roots with a Python that can run its tests; they are kept in the cache.

Run as a program it makes the missing roots: python -m tests.machine.checkout SUITE…
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.machine import debian

CHECKOUT = Path(__file__).parents[2]
PYTHON = "/opt/tests/bin/python"
# gcc: the tests compile a fake NVML. The user manager of the tests starts a bus of its own.
_PACKAGES = ("python3-venv", "dbus-user-session", "libgomp1", "procps", "gcc", "libc6-dev")
# What tests/systemd imports in addition to mmd's own dependencies.
_PYTHON_PACKAGES = ("blockbuster", "gguf", "hypothesis", "numpy", "pytest", "pytest-asyncio", "pytest-timeout")
_INSTALL_SECONDS = 600


def is_host(suite: str) -> bool:
    """True if this machine is of that release itself: `make test` runs the tests on its systemd."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME") == suite


def base_with_python(suite: str) -> Path:
    """Return the folder of a Debian in which PYTHON has the tests' dependencies, in the versions of constraints.txt."""
    constraints = (CHECKOUT / "constraints.txt").read_text()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *_PYTHON_PACKAGES]
    recipe = repr((debian.base(suite).name, _PACKAGES, wanted, constraints))

    def make(target: Path) -> None:
        debian.remove(target)
        debian.copy(debian.base(suite), target)
        debian.apt_install(suite, target, _PACKAGES, "--no-install-recommends", seconds=_INSTALL_SECONDS)
        (target / "opt/constraints.txt").write_text(constraints)
        folder = PYTHON.removesuffix("/bin/python")
        install = f"python3 -m venv {folder}; {PYTHON} -m pip install -q -c /opt/constraints.txt {shlex.join(wanted)}"
        debian.in_root(target, install, *way_to_pypi(), seconds=_INSTALL_SECONDS)

    return debian.kept(f"tests-{suite}", recipe, make)


def copy_checkout(target: Path) -> None:
    """Copy the checkout without ignored files."""
    target.mkdir(parents=True)
    names = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    pack = subprocess.run(
        ["tar", "-C", str(CHECKOUT), "--null", "--files-from=-", "--ignore-failed-read", "-c"],
        input=names, capture_output=True, check=True,
    ).stdout  # fmt: skip
    subprocess.run(["tar", "-C", str(target), "-x"], input=pack, check=True)


def way_to_pypi() -> Iterator[str]:
    """Return options of systemd-nspawn that pass on the host's pip settings and certificate authorities."""
    for file in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(file).exists():
            yield f"--bind-ro={file}"
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            yield f"--setenv={name}={value}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if not is_host(name):
            print(
                f"A Debian {name} with the tests' Python: where there is none yet, it is made in a minute", flush=True
            )
            base_with_python(name)

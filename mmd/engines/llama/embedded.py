"""llama.cpp without llama-server: its C++ server inside the Python package xllamacpp."""

from __future__ import annotations

import sys
from pathlib import Path

from mmd.engines.llama import embedded_main
from mmd.errors import EngineMissing
from mmd.plan.engine import Installed, Planner

NAME = "embedded"


def find(engine: Planner, configured: str | None) -> Installed | None:
    """Find the package beside mmd without importing it, which takes 45 ms. Raises EngineMissing."""
    from importlib.util import find_spec

    if configured is not None:
        raise EngineMissing(
            f"the {NAME} engine is configured as {configured}, but it can only be a package beside mmd",
            hint=how_to_install(),
        )
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return None
    _require_openmp(Path(spec.origin).parent)
    return Installed(
        engine=engine,
        # By its path, so that a start does not import the package around it. -P: otherwise the script's folder comes
        # first in the module path, and its modules shadow others of the same name.
        command=(sys.executable, "-P", embedded_main.__file__),
        version=_version(Path(spec.origin).parent),
        flags=embedded_main.FLAGS,
    )


def how_to_install() -> str:
    """Return the command that installs it in the way in which mmd itself was installed; without pip, the one that
    installs llama-server.
    """
    from importlib.util import find_spec

    home = Path(sys.prefix)
    if (home / "pipx_metadata.json").is_file():
        return f"pipx inject {home.name} xllamacpp"  # `pipx reinstall` deletes what pip installs there
    if find_spec("pip"):
        return f"{sys.executable} -m pip install xllamacpp"
    return "mmd engine install llama.cpp"


def _require_openmp(package: Path) -> None:
    """The wheel is linked with the system's OpenMP runtime, which a small Debian does not have."""
    from ctypes import CDLL

    if any(package.parent.glob(f"{package.name}.libs/libgomp*")):
        return  # a wheel that brings its own
    try:
        CDLL("libgomp.so.1")
    except OSError as error:
        raise EngineMissing(
            f"the {NAME} engine needs libgomp.so.1, which is not installed", hint="sudo apt install libgomp1"
        ) from error


def _version(package: Path) -> str:
    """Return the version in the name of its .dist-info folder; importlib.metadata takes 20 ms for the same."""
    for folder in package.parent.glob(f"{package.name}-*.dist-info"):
        return folder.name.removeprefix(f"{package.name}-").removesuffix(".dist-info")
    return "unknown"

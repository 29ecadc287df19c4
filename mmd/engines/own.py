"""Engines that mmd installed itself, under its data folder: one folder for each installation.

    engines/vllm          a link to the one in use
    engines/vllm-1/       a virtual environment, whole once installed.json is in it

An upgrade goes beside what is there: models that run or sleep keep theirs until they are started again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mmd.paths import engines_dir
from mmd.registry.atomic import write_atomically

_MARKER = "installed.json"


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
        return OwnEngine(**json.loads((folder / _MARKER).read_text("utf-8")))
    except FileNotFoundError:
        return None


def folders(engine: str) -> list[Path]:
    """All installations of an engine, whole or not, the oldest first."""
    found = [path for path in engines_dir().glob(f"{engine}-*") if path.name.removeprefix(f"{engine}-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def folder_to_fill(engine: str) -> Path:
    """Where to install: what an interrupted installation has left, or a new folder beside the others."""
    there = folders(engine)
    for folder in there:
        if read_marker(folder) is None:
            return folder
    number = int(there[-1].name.rpartition("-")[2]) + 1 if there else 1
    return engines_dir() / f"{engine}-{number}"


def complete(engine: str, folder: Path, marker: OwnEngine) -> None:
    """Have `folder` be the engine from now on: it says that it is whole, then the link goes over to it at once."""
    write_atomically(folder / _MARKER, (json.dumps(asdict(marker), indent=2) + "\n").encode())
    fresh = engines_dir() / f".{engine}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(engines_dir() / engine)


def delete(engine: str, folder: Path) -> None:
    """Take an installation away; the link goes first where it leads there."""
    link = engines_dir() / engine
    if link.is_symlink() and link.resolve() == folder.resolve():
        link.unlink()
    (folder / _MARKER).unlink(missing_ok=True)  # from here on it is not whole, whatever becomes of the rest
    shutil.rmtree(folder)

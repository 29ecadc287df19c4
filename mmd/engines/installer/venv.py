"""A virtual environment for an engine, and pip in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd.engines.installer.pip_output import PipOutput, failure
from mmd.engines.installer.process import Worker
from mmd.errors import EngineMissing

# Newest first, for engines that do not support the Python that runs mmd.
_OTHER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
# From this version on pip reports bytes and resumes downloads.
_GOOD_PIP = (25, 1)
_RAW_PROGRESS_SINCE = (24, 1)
# Variables of the user that would install packages elsewhere or import those of another Python.
_NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
_RETRIES = re.compile(r"Retrying \(Retry|Max retries exceeded")
_CUT_OFF = re.compile(
    r"Max retries exceeded|Read ?timed out|ReadTimeoutError|IncompleteRead|ProtocolError|name resolution"
)


class PipFailed(Exception):
    """pip failed; the message is its own last error."""


class WrongPython(PipFailed):
    """The package does not support this Python."""


class IndexUnreachable(PipFailed):
    """The package index did not answer, or stopped answering."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version that pip would install, from its metadata."""

    version: str
    python: str  # that it supports: ">=3.11,<3.15"
    requirements: tuple[str, ...]  # without extras


@dataclass(frozen=True, slots=True)
class Venv:
    folder: Path
    worker: Worker

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def packages(self) -> Path:
        """Return the folder of installed packages."""
        return next(self.folder.glob("lib/python3*/site-packages"))

    def is_made(self) -> bool:
        return self._pip_version() is not None

    def make(self, python: str | Path) -> None:
        """Make the environment, replacing an existing one. Raises EngineMissing if that Python cannot."""
        code = "import sys; print(*sys.version_info[:2], sep='.', flush=True); import ensurepip"
        asked = self.worker.run(python, "-c", code)
        if asked.status != 0:
            version = asked.output[0] if asked.output else ""
            package = f"python{version}-venv" if re.fullmatch(r"3\.\d+", version) else "python3-venv"
            raise EngineMissing(
                f"{python} cannot make virtual environments: {asked.last_line}", hint=f"sudo apt install {package}"
            )
        self.worker.progress.step(f"Making a virtual environment with Python {asked.output[0]}")
        made = self.worker.run(python, "-m", "venv", "--clear", self.folder)
        if made.status != 0:
            raise EngineMissing(
                f"{python} made no virtual environment: {made.last_line}", hint=f"less {self.worker.log}"
            )
        self._renew_pip()

    def forget_half_installed(self) -> None:
        """Delete the metadata of unfinished packages. pip writes RECORD last, but takes a package without one for
        installed.
        """
        for packages in self.folder.glob("lib/python3*/site-packages"):
            for entry in packages.glob("*.dist-info"):
                if not (entry / "RECORD").exists():
                    shutil.rmtree(entry)

    def newest(self, requirement: str, *words: str) -> Release:
        """Return the newest version, even if it does not support this Python. Raises PipFailed."""
        return self._release("--ignore-requires-python", *words, requirement)

    def release(self, requirement: str, *words: str) -> Release:
        """Return the version that pip would install. Raises PipFailed; WrongPython if none supports this Python."""
        return self._release(*words, requirement)

    def install(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> None:
        """Run pip install. Raises PipFailed."""
        output, progress = PipOutput(), self.worker.progress

        def read(line: str) -> bool:
            if message := output.read(line):
                (progress.step if message.is_step else progress.detail)(message.text)
            return not line.startswith("Progress ")

        bar = ("--progress-bar=raw",) if (self._pip_version() or ()) >= _RAW_PROGRESS_SINCE else ()
        with self._scratch() as scratch:
            done = self.worker.run(
                *self._pip, "install", *bar, *words, environment=_environment(scratch, environment or {}), read=read
            )
        if done.status != 0:
            raise _failed(done.output)

    # -- pip

    @property
    def _pip(self) -> tuple[str | Path, ...]:
        return (self.python, "-u", "-m", "pip", "--disable-pip-version-check", "--no-input")

    def _release(self, *words: str) -> Release:
        report = self.folder / "report.json"
        self.install("--dry-run", "--no-deps", "--ignore-installed", f"--report={report}", *words)
        metadata: dict[str, Any] = json.loads(report.read_bytes())["install"][0]["metadata"]
        wanted = (line for line in metadata.get("requires_dist", ()) if "extra ==" not in line)
        return Release(metadata["version"], metadata.get("requires_python", ""), tuple(wanted))

    def _pip_version(self) -> tuple[int, ...] | None:
        """Return the version in its folder's name; running pip takes half a second. None without pip or its Python."""
        if not self.python.exists():  # the link dangles after the system has replaced that Python
            return None
        for entry in self.folder.glob("lib/python3*/site-packages/pip-*.dist-info/RECORD"):
            return tuple(int(number) for number in re.findall(r"\d+", entry.parent.name)[:2])
        return None

    def _renew_pip(self) -> None:
        if (self._pip_version() or ()) >= _GOOD_PIP:
            return
        try:
            self.install("--upgrade", f"pip>={'.'.join(map(str, _GOOD_PIP))}")
        except PipFailed:
            # The old pip works too, with fewer messages. If the network is down, the next step reports it.
            self.worker.progress.detail("Using the pip that came with Python")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield a folder for pip's temporary files on the same disk: /tmp may be in RAM, and wheels have gigabytes."""
        scratch = self.folder / ".tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def suitable_pythons() -> Iterable[str]:
    """Yield the Python that runs mmd, then the others on PATH."""
    yield sys.executable
    yield from filter(None, map(shutil.which, _OTHER_PYTHONS))


def _environment(scratch: Path, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    return kept | {"PIP_USER": "0", "PIP_RESUME_RETRIES": "5", "TMPDIR": str(scratch)} | dict(more)


def _failed(output: list[str]) -> PipFailed:
    text, reason = "\n".join(output), failure(output)
    if re.search("requires? a different python", text, re.IGNORECASE):
        return WrongPython(reason)
    # If the index is unreachable, pip reports a package that does not exist.
    if _CUT_OFF.search(reason) or ("No matching distribution" in reason and _RETRIES.search(text)):
        return IndexUnreachable("the package index does not answer")
    return PipFailed(reason)

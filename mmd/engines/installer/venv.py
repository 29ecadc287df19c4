"""A virtual environment that an engine is installed into, and pip in it."""

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

# Newest first, for where the Python that runs mmd is not one that an engine supports.
_OTHER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
# From here on pip says how many bytes it has, and goes on with a download that was cut off.
_GOOD_PIP = (25, 1)
_RAW_PROGRESS_SINCE = (24, 1)
# Of the user's own environment and pip.conf, what would send packages elsewhere or bring in those of another Python.
_NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
_RETRIES = re.compile(r"Retrying \(Retry|Max retries exceeded")
_CUT_OFF = re.compile(
    r"Max retries exceeded|Read ?timed out|ReadTimeoutError|IncompleteRead|ProtocolError|name resolution"
)


class PipFailed(Exception):
    """pip did not do what it was asked; the message is its own last error."""


class WrongPython(PipFailed):
    """The package is not for this Python."""


class IndexUnreachable(PipFailed):
    """The package index did not answer, or went away in the middle."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version that pip would install, as its metadata has it."""

    version: str
    python: str  # that it runs on: ">=3.11,<3.15"
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
        """Where they are installed."""
        return next(self.folder.glob("lib/python3*/site-packages"))

    def is_made(self) -> bool:
        return self._pip_version() is not None

    def make(self, python: str | Path) -> None:
        """Make the environment, in place of what is there. Raises EngineMissing where that Python cannot."""
        code = "import sys; print(*sys.version_info[:2], sep='.', flush=True); import ensurepip"
        asked = self.worker.run(python, "-c", code)
        if asked.status != 0:
            version = asked.said[0] if asked.said else ""
            package = f"python{version}-venv" if re.fullmatch(r"3\.\d+", version) else "python3-venv"
            raise EngineMissing(
                f"{python} cannot make virtual environments: {asked.last_line}", hint=f"sudo apt install {package}"
            )
        self.worker.progress.step(f"Making a virtual environment with Python {asked.said[0]}")
        made = self.worker.run(python, "-m", "venv", "--clear", self.folder)
        if made.status != 0:
            raise EngineMissing(
                f"{python} made no virtual environment: {made.last_line}", hint=f"less {self.worker.log}"
            )
        self._renew_pip()

    def forget_half_installed(self) -> None:
        """Have pip install again what it had not finished: it writes the RECORD of a package last, and would take one
        without for installed.
        """
        for packages in self.folder.glob("lib/python3*/site-packages"):
            for entry in packages.glob("*.dist-info"):
                if not (entry / "RECORD").exists():
                    shutil.rmtree(entry)

    def newest(self, requirement: str, *words: str) -> Release:
        """The newest version there is, whether or not it is for this Python. Raises PipFailed."""
        return self._release("--ignore-requires-python", *words, requirement)

    def release(self, requirement: str, *words: str) -> Release:
        """The version that pip would install. Raises PipFailed; WrongPython where there is none for this Python."""
        return self._release(*words, requirement)

    def install(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> None:
        """pip install. Raises PipFailed."""
        output, progress = PipOutput(), self.worker.progress

        def read(line: str) -> bool:
            if told := output.read(line):
                (progress.step if told.is_step else progress.detail)(told.text)
            return not line.startswith("Progress ")

        bar = ("--progress-bar=raw",) if (self._pip_version() or ()) >= _RAW_PROGRESS_SINCE else ()
        with self._scratch() as scratch:
            done = self.worker.run(
                *self._pip, "install", *bar, *words, environment=_environment(scratch, environment or {}), read=read
            )
        if done.status != 0:
            raise _failed(done.said)

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
        """From its folder's name; running it takes half a second. None where there is no pip, or no Python for it."""
        if not self.python.exists():  # a link to a Python that the system has replaced leads nowhere
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
            # The old one does the work too, and says less. If the network is away, the next step says so.
            self.worker.progress.detail("Going on with the pip that came with Python")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for pip's temporary files on the disk that has the room: /tmp may be in RAM, and wheels are GB."""
        scratch = self.folder / ".tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def suitable_pythons() -> Iterable[str]:
    """The Python that runs mmd, then the others on PATH."""
    yield sys.executable
    yield from filter(None, map(shutil.which, _OTHER_PYTHONS))


def _environment(scratch: Path, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    return kept | {"PIP_USER": "0", "PIP_RESUME_RETRIES": "5", "TMPDIR": str(scratch)} | dict(more)


def _failed(said: list[str]) -> PipFailed:
    text, reason = "\n".join(said), failure(said)
    if re.search("requires? a different python", text, re.IGNORECASE):
        return WrongPython(reason)
    # An index that is out of reach has no versions, which pip reports as a package that does not exist.
    if _CUT_OFF.search(reason) or ("No matching distribution" in reason and _RETRIES.search(text)):
        return IndexUnreachable("the package index does not answer")
    return PipFailed(reason)

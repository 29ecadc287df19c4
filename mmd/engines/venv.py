"""A virtual environment that an engine is installed into, and pip in it, with what it says for whoever waits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd.errors import EngineMissing

# Newest first of those that engines support, where the Python that runs mmd will not do.
_OTHER_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10")
# What pip says while it works, of that what says how far it is.
_TELLING = re.compile(r"^\s*(Collecting|Downloading|Using cached|Building|Preparing metadata|Installing)\b")

Progress = Callable[[str], None]


class PipFailed(Exception):
    """pip did not do what it was asked; the message is its own last error."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version that pip would install, as its metadata has it."""

    version: str
    requirements: tuple[str, ...]  # without extras


@dataclass(frozen=True, slots=True)
class Venv:
    folder: Path
    log: Path  # where all of pip's output goes
    progress: Progress

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def make(self, python: str = sys.executable) -> None:
        """Make the environment where it is not made yet. Raises EngineMissing where Python cannot."""
        if (self.folder / "bin/pip").exists() and self._pip_runs():
            return
        self.progress(f"Making a virtual environment in {self.folder}")
        done = subprocess.run(
            (python, "-m", "venv", "--clear", self.folder), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise EngineMissing(
                f"{python} cannot make a virtual environment: {_last_line(done.stdout + done.stderr)}",
                hint="sudo apt install python3-venv",
            )

    def release(self, requirement: str) -> Release:
        """The version that pip would install for a requirement. Raises PipFailed where it finds none."""
        report = self.folder / "report.json"
        self.pip("install", "--dry-run", "--no-deps", "--ignore-installed", f"--report={report}", requirement)
        metadata: dict[str, Any] = json.loads(report.read_bytes())["install"][0]["metadata"]
        wanted = (line for line in metadata.get("requires_dist", ()) if "extra ==" not in line)
        return Release(metadata["version"], tuple(wanted))

    def install(self, *words: str, environment: Mapping[str, str] | None = None) -> None:
        """pip install. Raises PipFailed."""
        self.pip("install", *words, environment=environment)

    def pip(self, *words: str, environment: Mapping[str, str] | None = None) -> None:
        command = (str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *words)
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", env=os.environ | dict(environment or {}) | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            try:
                said = list(self._told(process, log))
            finally:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise PipFailed(_error_of(said))

    def _told(self, process: subprocess.Popen[str], log: Any) -> Iterator[str]:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                log.write(line)
                if _TELLING.match(line):
                    self.progress(line.strip())
                yield line
        process.wait()

    def _pip_runs(self) -> bool:
        command = (self.python, "-m", "pip", "--version")
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def suitable_pythons() -> Iterable[str]:
    """The Python that runs mmd, then the others on PATH."""
    import shutil

    yield sys.executable
    for name in _OTHER_PYTHONS:
        if (found := shutil.which(name)) is not None:
            yield found


def _error_of(said: list[str]) -> str:
    errors = [line for line in said if line.startswith("ERROR")]
    return (errors[-1].removeprefix("ERROR:") if errors else _last_line("".join(said))).strip()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"

"""Run programs that take minutes: their output goes to a log, messages about their progress to the caller."""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from mmd.parent_death import end_with_parent

_REDRAW_SECONDS = 0.5


class InstallProgress(Protocol):
    """Receives messages about the progress."""

    def step(self, text: str) -> None:
        """A step begins that takes a while."""

    def detail(self, text: str) -> None:
        """Report how far the step is."""

    def still(self) -> None:
        """Called twice a second while the step continues without a new message."""


@dataclass(frozen=True, slots=True)
class Finished:
    status: int
    output: list[str]  # its lines, without line ends

    @property
    def last_line(self) -> str:
        return next((line.strip() for line in reversed(self.output) if line.strip()), "it printed nothing")


@dataclass(frozen=True, slots=True)
class Worker:
    log: Path
    progress: InstallProgress

    def run(
        self,
        *command: str | Path,
        environment: Mapping[str, str] | None = None,
        read: Callable[[str], bool] = lambda _line: True,
    ) -> Finished:
        """Run a program until it exits; `read` gets each line and returns whether it belongs into the log.

        The program is killed when mmd ends, because two of them must not work in one folder.
        """
        words = [os.fspath(word) for word in command]
        output: list[str] = []
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(words)}\n")
            process = _start(words, environment)
            try:
                for line in self._lines(process.stdout):
                    if read(line):
                        output.append(line)
                        log.write(line + "\n")
                process.wait()
            finally:
                process.kill()
                process.wait()
        return Finished(process.returncode, output)

    def _lines(self, output: IO[bytes] | None) -> Iterator[str]:
        assert output is not None
        rest = b""
        with output, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                if not selector.select(_REDRAW_SECONDS):
                    self.progress.still()
                    continue
                block = os.read(output.fileno(), 65536)
                if not block:
                    break
                *lines, rest = (rest + block).split(b"\n")
                yield from (line.decode("utf-8", "replace").rstrip("\r") for line in lines)
        if rest:
            yield rest.decode("utf-8", "replace")


def _start(words: list[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    settings: dict[str, Any] = {} if environment is None else {"env": environment}
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=end_with_parent,  # noqa: PLW1509 one call of prctl(), which takes no lock
        **settings,
    )

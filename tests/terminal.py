"""A real shell on a terminal of its own, to see what a key does in it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

PROMPT = "ready> "
_WAIT_SECONDS = 30
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[=>]|\][^\a]*\a)")


class Terminal:
    """Input and output of a shell whose prompt is PROMPT."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.shown = ""
        self._keyboard, inner = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", *words], cwd=folder, env=environment, stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._keyboard)

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def wait_shown(self, text: str) -> str:
        """Return the output up to this text, and drop both."""
        end = time.monotonic() + _WAIT_SECONDS
        while text not in self.shown:
            readable, _, _ = select.select([self._keyboard], [], [], max(0, end - time.monotonic()))
            assert readable, f"{text!r} is not shown, but {self.shown!r}"
            self.shown += _ESCAPE.sub("", os.read(self._keyboard, 65536).decode(errors="replace"))
        before, _, self.shown = self.shown.partition(text)
        return before

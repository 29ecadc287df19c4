"""Records in a file, a line of JSON each, the newest last; the oldest go where there are too many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmd.files import locked
from mmd.paths import make_private


class JsonLines:
    """Two files of `most_bytes` at the most: when one is full it becomes the older one, in place of what that was."""

    def __init__(self, file: Path, most_bytes: int) -> None:
        self.file = file
        self._older = file.with_suffix(".1.jsonl")
        self._most_bytes = most_bytes

    def append(self, record: Mapping[str, Any]) -> None:
        """Raises OSError."""
        make_private(self.file.parent)
        if self._is_full():
            self._rotate()
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self.file.open("ab", buffering=0) as lines:  # one write: lines of two processes do not mix
            lines.write(line.encode("utf-8", "replace"))

    def lines(self) -> list[bytes]:
        """All that are kept, oldest first; a line may be cut short by a full disk or a crash."""
        while True:
            before = self._inode()
            older, newer = _content(self._older), _content(self.file)
            if self._inode() == before:
                return [*older.splitlines(), *newer.splitlines()]
            # Another process has rotated the files in between: what was `file` is the older one now.

    def _rotate(self) -> None:
        """Once, where several find the file full: a second time would put the few new lines in place of the older."""
        with locked(self.file.with_suffix(".lock")):
            if self._is_full():
                self.file.replace(self._older)

    def _is_full(self) -> bool:
        try:
            return self.file.stat().st_size > self._most_bytes
        except FileNotFoundError:
            return False

    def _inode(self) -> int | None:
        try:
            return self.file.stat().st_ino
        except FileNotFoundError:
            return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""

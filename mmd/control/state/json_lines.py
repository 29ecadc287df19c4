"""Records in a file, one line of JSON each, the newest last."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from mmd.codec import BadRecord, convert, decode, encode
from mmd.files import locked
from mmd.paths import make_private

T = TypeVar("T")

_log = logging.getLogger(__name__)


class JsonLines(Generic[T]):
    """Two files of at most `max_bytes`: a full file becomes the older one, and replaces the one that was that.

    An instance that is kept decodes each line once.
    """

    def __init__(
        self,
        file: Path,
        kind: type[T],
        max_bytes: int,
        *,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """`upgrade` makes the record of an older mmd one of this version; it is called for lines that are not one."""
        self.file = file
        self._kind = kind
        self._upgrade = upgrade
        self._older = file.with_suffix(".1.jsonl")
        self._max_bytes = max_bytes
        self._decoded: dict[bytes, T] = {}  # of the last reading

    def append(self, record: T) -> None:
        """Raise OSError if the record cannot be written."""
        make_private(self.file.parent)
        if self._is_full():
            self._rotate()
        with self.file.open("ab", buffering=0) as lines:  # one write: lines of two processes do not mix
            lines.write(encode(record) + b"\n")

    def records(self, newest: int | None = None) -> list[T]:
        """Return the newest records, oldest first; without a number all of them. Raise OSError.

        A damaged line is skipped with a warning: a full disk or a crash cuts lines short.
        """
        lines = self._lines()
        found = []
        known, decoded = self._decoded, dict[bytes, T]()
        for line in lines if newest is None else lines[max(0, len(lines) - newest) :]:
            try:
                decoded[line] = known[line] if line in known else self._decode(line)
            except BadRecord as error:
                _log.warning("%s has a damaged line (%s): %r", self.file, error, line[:80])
            else:
                found.append(decoded[line])
        self._decoded = decoded
        return found

    def _decode(self, line: bytes) -> T:
        try:
            return decode(line, self._kind)
        except BadRecord:
            if self._upgrade is None:
                raise
            return convert(self._upgrade(decode(line, dict[str, Any])), self._kind)

    def _lines(self) -> list[bytes]:
        """Return the lines of both files, oldest first."""
        while True:
            before = self._inode()
            older, newer = _content(self._older), _content(self.file)
            if self._inode() == before:
                return [*older.splitlines(), *newer.splitlines()]
            # Another process has rotated the files in between: what was `file` is the older one now.

    def _rotate(self) -> None:
        """Rotate once if several processes find the file full: a second time would drop the older lines."""
        with locked(self.file.with_suffix(".lock")):
            if self._is_full():
                self.file.replace(self._older)

    def _is_full(self) -> bool:
        try:
            return self.file.stat().st_size > self._max_bytes
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

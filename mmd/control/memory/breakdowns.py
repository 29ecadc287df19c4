"""A cache of the memory tables that llama-server reports, so that it need not run again for the same model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, convert, decode, encode
from mmd.paths import cache_dir
from mmd.plan.breakdown import Breakdown, Row

_MAX_TABLES = 200

_log = logging.getLogger(__name__)


class Breakdowns:
    """By a key for the weights, the engine's version and its arguments: everything that the sizes depend on."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_dir() / "breakdowns.json"

    def get(self, key: str) -> Breakdown | None:
        rows = self._read().get(key)
        try:
            return None if rows is None else Breakdown(convert(rows, tuple[Row, ...]))
        except BadRecord:  # of another version
            return None

    def put(self, key: str, breakdown: Breakdown) -> None:
        """Add a table, and drop the oldest ones over the limit. If it cannot be written, the engine runs again."""
        known = {name: rows for name, rows in self._read().items() if name != key}
        known[key] = breakdown.rows
        try:
            write_atomically(self.file, encode(dict([*known.items()][-_MAX_TABLES:])), durable=False)
        except OSError as error:
            _log.info("%s cannot be written: %s", self.file, error.strerror)

    def _read(self) -> Mapping[str, Any]:
        """Return the rows as parsed JSON: `get` checks those it needs, so one damaged table costs no other."""
        try:
            return decode(self.file.read_bytes(), dict[str, Any])
        except (OSError, BadRecord):  # missing, or damaged: it is a cache
            return {}

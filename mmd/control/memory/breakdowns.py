"""Which tables of its memory llama-server has told, so that it is asked once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmd.atomic import write_atomically
from mmd.paths import cache_dir
from mmd.plan.breakdown import Breakdown, Row

_MOST = 200

_log = logging.getLogger(__name__)


class Breakdowns:
    """By a key for the weights, the engine's version and its arguments: all that the sizes follow from."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_dir() / "breakdowns.json"

    def get(self, key: str) -> Breakdown | None:
        rows = self._read().get(key)
        try:
            return None if rows is None else Breakdown(tuple(_row(row) for row in rows))
        except TypeError:  # of another version
            return None

    def put(self, key: str, breakdown: Breakdown) -> None:
        """The oldest go where there are too many. One that cannot be written is asked for again."""
        known = {name: rows for name, rows in self._read().items() if name != key}
        known[key] = asdict(breakdown)["rows"]
        try:
            write_atomically(self.file, json.dumps(dict([*known.items()][-_MOST:])).encode(), durable=False)
        except OSError as error:
            _log.info("%s cannot be written: %s", self.file, error.strerror)

    def _read(self) -> Mapping[str, Any]:
        try:
            content = json.loads(self.file.read_bytes())
        except (OSError, ValueError):  # none yet, or damaged: a cache
            return {}
        return content if isinstance(content, dict) else {}


def _row(table: Mapping[str, Any]) -> Row:
    row = Row(**table)
    if not all(isinstance(size, int) for size in (row.model_bytes, row.context_bytes, row.compute_bytes)):
        raise TypeError
    return row

"""Parse the memory table that llama-server prints with --log-jsonl before it reads any weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mmd.plan.breakdown import Breakdown, Row
from mmd.quantities import MIB

_TYPE = "fit_memory_breakdown"


def breakdown_in(lines: Iterable[str]) -> Breakdown | None:
    """Return the first table in llama-server's output with --log-jsonl; the one at the end is about what has run."""
    for line in lines:
        if _TYPE in line and (found := _parsed(line)):
            return found
    return None


def _parsed(line: str) -> Breakdown | None:
    try:
        record: Any = json.loads(line)
        if record["type"] != _TYPE or record["data"]["unit"] != "MiB":
            return None
        return Breakdown(tuple(_row(row) for row in record["data"]["rows"]))
    except (ValueError, KeyError, TypeError):
        return None  # another line that contains the word, or the table of another version


def _row(row: dict[str, Any]) -> Row:
    return Row(
        name=str(row["name"]),
        is_device=row["kind"] == "device",
        model_bytes=int(row["model"]) * MIB,
        context_bytes=int(row["context"]) * MIB,
        compute_bytes=int(row["compute"]) * MIB,
    )

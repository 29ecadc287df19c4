"""What was learned about installed vLLMs, kept under the cache folder: one file for each program and version."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from mmd.atomic import write_atomically
from mmd.engines.vllm.source import Accepted
from mmd.paths import cache_dir

_PARTS = ("flags", "tool_parsers", "reasoning_parsers")

_log = logging.getLogger(__name__)


def key_of(program: Path, version_file: Path) -> str:
    """Changes whenever either file does: an upgrade is noticed at the next look, which costs two stat()."""
    stamps = []
    for file in (program, version_file):
        try:
            status = file.stat()
            stamps.append((str(file.resolve()), status.st_mtime_ns, status.st_size))
        except FileNotFoundError:
            stamps.append((str(file), 0, 0))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]


def recall(key: str) -> Accepted | None:
    record = _read(key)
    return None if record is None else Accepted(*(frozenset(record[part]) for part in _PARTS))


def is_confirmed(key: str) -> bool:
    """Whether the program itself has said so."""
    record = _read(key)
    return record is not None and record["confirmed"] is True


def remember(key: str, accepted: Accepted, *, confirmed: bool = False) -> None:
    record = {part: sorted(getattr(accepted, part)) for part in _PARTS}
    try:
        write_atomically(_file(key), json.dumps(record | {"confirmed": confirmed}).encode(), durable=False)
    except OSError as error:
        _log.info("what was learned of vLLM cannot be kept: %s", error)  # it is learned again next time


def _read(key: str) -> dict[str, Any] | None:
    file = _file(key)
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.info("%s cannot be read (%s): it is made anew", file, error)
        return None
    return record if _is_whole(record) else None


def _is_whole(record: object) -> bool:
    if not isinstance(record, dict) or "confirmed" not in record:
        return False
    return all(isinstance(record.get(part), list) for part in _PARTS)


def _file(key: str) -> Path:
    return cache_dir() / "engines" / f"{key}.json"

"""The options of installed vLLMs, cached in one file for each program and version."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode
from mmd.engines.vllm.source import Accepted
from mmd.paths import cache_dir

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    flags: frozenset[str]
    tool_parsers: frozenset[str]
    reasoning_parsers: frozenset[str]
    confirmed: bool


def key_of(program: Path, version_file: Path) -> str:
    """Return a key that changes with either file, so that an upgrade is noticed. It costs two stat()."""
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
    return None if record is None else Accepted(record.flags, record.tool_parsers, record.reasoning_parsers)


def is_confirmed(key: str) -> bool:
    """Return True if the program itself has listed its options."""
    record = _read(key)
    return record is not None and record.confirmed


def remember(key: str, accepted: Accepted, *, confirmed: bool = False) -> None:
    record = _Record(accepted.flags, accepted.tool_parsers, accepted.reasoning_parsers, confirmed)
    try:
        write_atomically(_file(key), encode(record), durable=False)
    except OSError as error:
        _log.info("%s cannot be written: %s", _file(key), error)  # the next start scans vLLM again


def _read(key: str) -> _Record | None:
    file = _file(key)
    try:
        return decode(file.read_bytes(), _Record)
    except FileNotFoundError:
        return None
    except (OSError, BadRecord) as error:
        _log.info("%s cannot be read, so vLLM is scanned again: %s", file, error)
        return None


def _file(key: str) -> Path:
    return cache_dir() / "engines" / f"{key}.json"

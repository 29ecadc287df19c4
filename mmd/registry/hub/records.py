"""The hub's records of repositories, validated once: each key is there with the right type, or absent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmd.errors import HubUnavailable
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.names import stays_inside

# The keys that are read, and their types; a value of another type counts as absent.
_TYPES: Mapping[str, type | Mapping[str, type]] = {
    "downloads": int,
    "likes": int,
    "lastModified": str,
    "pipeline_tag": str,
    "library_name": str,
    "cardData": dict,
    "gguf": {"total": int, "context_length": int, "architecture": str, "chat_template": str},
    "safetensors": {"total": int},
    "config": {"quantization_config": dict},
}
_ID = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_QUOTE_LENGTH = 200
_MAX_BYTES = 1 << 50  # of one file; more than the hub accepts


def parse_record(answer: Any) -> dict[str, Any]:
    """Validate the record of a repository; `files` are its HubFiles.

    Raises HubUnavailable if it is not a record, or if its file names, which become paths, are not safe.
    """
    if not isinstance(answer, dict) or not _matches(_ID, answer.get("id")) or not stays_inside(answer["id"]):
        raise malformed("it is not the record of a repository")
    if answer.get("sha") is not None and not _matches(_COMMIT, answer["sha"]):
        raise malformed(f"{answer['sha']!r} is not a commit")
    record = {key: _valid(answer[key], kind) for key, kind in _TYPES.items() if key in answer}
    return record | {
        "id": answer["id"],
        "sha": answer.get("sha"),
        "gated": bool(answer.get("gated")),
        "tags": [tag for tag in _list(answer, "tags") if isinstance(tag, str)],
        "files": tuple(_file(one) for one in _list(answer, "siblings")),
    }


def parse_records(answer: Any) -> list[dict[str, Any]]:
    """Validate a list of records. Raises HubUnavailable."""
    if not isinstance(answer, list):
        raise malformed("it is not a list of repositories")
    return [parse_record(one) for one in answer]


def malformed(why: str) -> HubUnavailable:
    from huggingface_hub import constants

    return HubUnavailable(
        f"the hub's response is not valid: {why}",
        hint=f"curl -L {constants.ENDPOINT}/api/models/gpt2   # a proxy or a login page may answer in its place",
    )


def _valid(value: Any, kind: type | Mapping[str, type]) -> Any:
    if isinstance(kind, type):
        return value if isinstance(value, kind) else None
    if not isinstance(value, dict):
        return None
    return {key: value[key] for key, inner in kind.items() if isinstance(value.get(key), inner)}


def _list(answer: Mapping[str, Any], key: str) -> list[Any]:
    value = answer.get(key) or []
    if not isinstance(value, list):
        raise malformed(f"its {key} are not a list")
    return value


def _file(answer: Any) -> HubFile:
    entry = answer if isinstance(answer, dict) else {}
    name, size_bytes, lfs = entry.get("rfilename"), entry.get("size") or 0, entry.get("lfs") or {}
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else lfs
    if not isinstance(name, str) or not isinstance(size_bytes, int) or not 0 <= size_bytes <= _MAX_BYTES:
        raise malformed(f"it lists a file as {str(answer)[:_MAX_QUOTE_LENGTH]!r}")
    if sha256 is not None and not _matches(_SHA256, sha256):
        raise malformed(f"it gives {name!r} the sha256 {str(sha256)[:_MAX_QUOTE_LENGTH]!r}")
    return HubFile(name, size_bytes, sha256)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None

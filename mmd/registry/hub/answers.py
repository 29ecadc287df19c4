"""What the hub answers, taken apart once: all who read a record further on find in it what they expect, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmd.errors import HubUnavailable
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.names import stays_inside

# What is read of a record, and what it is to be; a key that is something else is as good as absent.
_KINDS: Mapping[str, type | Mapping[str, type]] = {
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
_LONGEST_QUOTE = 200
_MOST_BYTES = 1 << 50  # of one file; the hub takes none as large


def record_in(answer: Any) -> dict[str, Any]:
    """The record of a repository; `files` are its HubFiles.

    Raises HubUnavailable where this is none, or where what it says of files, which become paths, makes no sense.
    """
    if not isinstance(answer, dict) or not _matches(_ID, answer.get("id")) or not stays_inside(answer["id"]):
        raise no_sense("it is no record of a repository")
    if answer.get("sha") is not None and not _matches(_COMMIT, answer["sha"]):
        raise no_sense(f"{answer['sha']!r} is no commit")
    record = {key: _kept(answer[key], kind) for key, kind in _KINDS.items() if key in answer}
    return record | {
        "id": answer["id"],
        "sha": answer.get("sha"),
        "gated": bool(answer.get("gated")),
        "tags": [tag for tag in _list(answer, "tags") if isinstance(tag, str)],
        "files": tuple(_file(one) for one in _list(answer, "siblings")),
    }


def records_in(answer: Any) -> list[dict[str, Any]]:
    """A list of them. Raises HubUnavailable."""
    if not isinstance(answer, list):
        raise no_sense("it is no list of repositories")
    return [record_in(one) for one in answer]


def no_sense(why: str) -> HubUnavailable:
    from huggingface_hub import constants

    return HubUnavailable(
        f"what the hub answers makes no sense: {why}",
        hint=f"curl -L {constants.ENDPOINT}/api/models/gpt2   # a proxy or a login page may answer instead of it",
    )


def _kept(value: Any, kind: type | Mapping[str, type]) -> Any:
    if isinstance(kind, type):
        return value if isinstance(value, kind) else None
    if not isinstance(value, dict):
        return None
    return {key: value[key] for key, inner in kind.items() if isinstance(value.get(key), inner)}


def _list(answer: Mapping[str, Any], key: str) -> list[Any]:
    value = answer.get(key) or []
    if not isinstance(value, list):
        raise no_sense(f"its {key} are no list")
    return value


def _file(answer: Any) -> HubFile:
    said = answer if isinstance(answer, dict) else {}
    name, size_bytes, lfs = said.get("rfilename"), said.get("size") or 0, said.get("lfs") or {}
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else lfs
    if not isinstance(name, str) or not isinstance(size_bytes, int) or not 0 <= size_bytes <= _MOST_BYTES:
        raise no_sense(f"it lists a file as {str(answer)[:_LONGEST_QUOTE]!r}")
    if sha256 is not None and not _matches(_SHA256, sha256):
        raise no_sense(f"it gives {name!r} the sha256 {str(sha256)[:_LONGEST_QUOTE]!r}")
    return HubFile(name, size_bytes, sha256)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None

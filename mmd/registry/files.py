"""Opening what the user points at: regular files only, with errors that say what to do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from mmd.errors import BadModelFile

# The largest config.json, index or tokenizer configuration of a real model is about 5 MB.
_MAX_JSON_BYTES = 1 << 26


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; a named pipe or a device is refused, where open() would hang or read forever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadModelFile(
            f"{path} cannot be read: {error.strerror}", hint=f"ls -lL {quote(str(path))}   # what it is"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadModelFile(f"{path} is not a regular file", hint=f"ls -lL {quote(str(path))}   # what it is")
    return os.fdopen(descriptor, "rb")


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is no such file."""
    if not path.exists():
        return {}
    with open_regular(path) as file:
        text = file.read(_MAX_JSON_BYTES + 1)
    if len(text) > _MAX_JSON_BYTES:
        raise _not_json(path, f"it is larger than {_MAX_JSON_BYTES >> 20} MiB")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, str(error)) from error
    if not isinstance(content, dict):
        raise _not_json(path, "it holds no object")
    return content


def _not_json(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} is damaged: {what}",
        hint=f"head -c 200 {quote(str(path))}   # what it is now; it wants to be downloaded again",
    )

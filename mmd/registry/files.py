"""Open files that the user names: regular files only, with errors that say what to do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from mmd.errors import BadModelFile

# The largest config.json, index or tokenizer configuration of a real model is about 5 MB.
_MAX_TEXT_BYTES = 1 << 26


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file. Refuse a named pipe or a device, on which open() hangs or a read never ends."""
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


def read_text_file(path: Path) -> bytes:
    """Return what a regular file holds. Raise BadModelFile if it is too large for text."""
    with open_regular(path) as file:
        text = file.read(_MAX_TEXT_BYTES + 1)
    if len(text) > _MAX_TEXT_BYTES:
        raise _damaged(path, f"it is larger than {_MAX_TEXT_BYTES >> 20} MiB")
    return text


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} if the file does not exist."""
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is not a JSON object")
    return content


def _damaged(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} is damaged: {what}",
        hint=f"head -c 200 {quote(str(path))}   # shows its beginning; download the file again",
    )

"""The content of a file of the fake hub: bytes in memory, or a file on disk that is never read whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LARGE_BYTES = 4096  # larger files are in LFS


@dataclass(frozen=True)
class OnDisk:
    """A file of any size. `sha256` is required if hashing takes too long, for a sparse file for example."""

    path: Path
    sha256: str = ""


Content = bytes | OnDisk


def size_bytes(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.path.stat().st_size


def is_large(content: Content) -> bool:
    return size_bytes(content) > LARGE_BYTES


def sha256(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    status = content.path.stat()
    return content.sha256 or _sha256_of_file(content.path, status.st_size, status.st_mtime_ns)


def blob_id(content: Content) -> str:
    """Return git's name of it. For a large file that would be the hash of its pointer, which no test needs."""
    if is_large(content):
        return hashlib.sha1(sha256(content).encode()).hexdigest()
    whole = read(content, 0, size_bytes(content))
    return hashlib.sha1(b"blob %d\0" % len(whole) + whole).hexdigest()


def read(content: Content, begin: int, count: int) -> bytes:
    if isinstance(content, bytes):
        return content[begin : begin + count]
    with content.path.open("rb") as file:
        file.seek(begin)
        return file.read(count)


@lru_cache
def _sha256_of_file(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

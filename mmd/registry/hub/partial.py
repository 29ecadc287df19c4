"""A partly fetched file, written in parallel segments; what is fetched survives a kill at any moment."""

from __future__ import annotations

import os
import struct
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmd.files import try_lock

SEGMENT_BYTES = 32 << 20
_MAGIC = b"mmd-1\0\0\0"
_HEAD = struct.Struct("=8sQ")  # the magic, and the size of a segment
_COUNT = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Segment:
    """The missing bytes of one segment, as one request asks for them."""

    index: int
    begin: int
    end: int


class Partial:
    """A file on disk with the content, including holes, followed by the ledger: the fetched bytes of each segment.

    It is one file, so that deleting it deletes both; the ledger is cut off when the content is complete. Valid inside
    `locked`. Each segment has one writer, so no further lock is needed.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.grown = threading.Event()  # set by each write, for a thread that follows; cleared by it
        self._descriptor = descriptor
        self._counts = _counts(descriptor, size_bytes) or self._begin()

    def _begin(self) -> array[int]:
        counts = _no_counts(self.size_bytes)
        os.ftruncate(self._descriptor, 0)
        # Written, not a hole, so that the ledger has its blocks if the disk is full later.
        os.pwrite(self._descriptor, _HEAD.pack(_MAGIC, SEGMENT_BYTES) + counts.tobytes(), self.size_bytes)
        return counts

    def done_bytes(self) -> int:
        return sum(self._counts)

    def missing(self) -> Iterator[Segment]:
        """Yield what is still to be fetched, in order."""
        for index, count in enumerate(self._counts):
            begin, end = _bounds(index, self.size_bytes)
            if begin + count < end:
                yield Segment(index, begin + count, end)

    def write(self, segment: Segment, offset: int, chunk: bytes) -> None:
        """Write the next bytes of a segment; they count once they are written."""
        begin, end = _bounds(segment.index, self.size_bytes)
        assert begin + self._counts[segment.index] == offset and offset + len(chunk) <= end
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        place = self.size_bytes + _HEAD.size + _COUNT.size * segment.index
        os.pwrite(self._descriptor, _COUNT.pack(offset - begin), place)
        self._counts[segment.index] = offset - begin
        self.grown.set()

    def contiguous_end(self, offset: int) -> int:
        """Return the end of the fetched bytes that begin at `offset` and have no hole."""
        index = offset // SEGMENT_BYTES
        while index < len(self._counts):
            begin, end = _bounds(index, self.size_bytes)
            if begin + self._counts[index] < end:
                return begin + self._counts[index]
            index += 1
        return self.size_bytes

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._descriptor, [buffer], offset)

    def cut_ledger(self) -> None:
        """Leave only the content."""
        os.ftruncate(self._descriptor, self.size_bytes)


@contextmanager
def locked(path: Path, size_bytes: int) -> Iterator[Partial | None]:
    """Yield the partial file at `path`, made if it is missing; None if another process has it locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield Partial(descriptor, size_bytes) if _lock(descriptor, path) else None
    finally:
        os.close(descriptor)


def done_bytes(path: Path, size_bytes: int) -> int:
    """Return the fetched bytes of the file at `path`, which another process may be writing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return sum(_counts(descriptor, size_bytes) or ())
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    if not try_lock(descriptor):
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:  # between open() and the lock, another process renamed it
        return False


def _counts(descriptor: int, size_bytes: int) -> array[int] | None:
    """Return the ledger; None if it is missing or not valid, as in a file of another version."""
    if os.fstat(descriptor).st_size == size_bytes:  # complete; the process was killed after cutting the ledger off
        return array("Q", (end - begin for begin, end in _all_bounds(size_bytes)))
    counts = _no_counts(size_bytes)
    ledger = os.pread(descriptor, _HEAD.size + len(counts) * _COUNT.size + 1, size_bytes)
    if len(ledger) != _HEAD.size + len(counts) * _COUNT.size or _HEAD.unpack_from(ledger) != (_MAGIC, SEGMENT_BYTES):
        return None
    counts = array("Q", ledger[_HEAD.size :])
    bounds = _all_bounds(size_bytes)
    return counts if all(begin + count <= end for count, (begin, end) in zip(counts, bounds, strict=True)) else None


def _bounds(index: int, size_bytes: int) -> tuple[int, int]:
    begin = index * SEGMENT_BYTES
    return begin, min(begin + SEGMENT_BYTES, size_bytes)


def _all_bounds(size_bytes: int) -> list[tuple[int, int]]:
    return [_bounds(index, size_bytes) for index in range(-(-size_bytes // SEGMENT_BYTES))]


def _no_counts(size_bytes: int) -> array[int]:
    return array("Q", bytes(_COUNT.size * -(-size_bytes // SEGMENT_BYTES)))

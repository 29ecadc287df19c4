"""A file that is not whole yet, fetched in segments side by side: what has come of it survives a kill at any moment."""

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
    """Bytes that one request asks for; those before `begin` have come."""

    index: int
    begin: int
    end: int


class Partial:
    """The file on disk is the content, with holes, and behind it the ledger: how much of each segment has come.

    One file rather than two, so that whoever clears it away clears both; the ledger is cut off when all is there.
    Use it while `locked` lasts. Each segment has one writer, so nothing here needs a lock of its own.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.grown = threading.Event()  # set with every write, for whoever follows; cleared by them
        self._descriptor = descriptor
        self._counts = _counts(descriptor, size_bytes) or self._begin()

    def _begin(self) -> array[int]:
        counts = _no_counts(self.size_bytes)
        os.ftruncate(self._descriptor, 0)
        # Written, not a hole: where the disk is full later, the ledger has its place.
        os.pwrite(self._descriptor, _HEAD.pack(_MAGIC, SEGMENT_BYTES) + counts.tobytes(), self.size_bytes)
        return counts

    def done_bytes(self) -> int:
        return sum(self._counts)

    def missing(self) -> Iterator[Segment]:
        """What is still to be fetched, in order."""
        for index, count in enumerate(self._counts):
            begin, end = _bounds(index, self.size_bytes)
            if begin + count < end:
                yield Segment(index, begin + count, end)

    def write(self, segment: Segment, offset: int, chunk: bytes) -> None:
        """Put down the next bytes of a segment; they count once they are down."""
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

    def whole_up_to(self, offset: int) -> int:
        """The end of what has come without a hole behind `offset`, which is inside it."""
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
        """Leaves the bare content."""
        os.ftruncate(self._descriptor, self.size_bytes)


@contextmanager
def locked(path: Path, size_bytes: int) -> Iterator[Partial | None]:
    """The partial file at `path`, made where there is none; None where another process has it just now."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield Partial(descriptor, size_bytes) if _lock(descriptor, path) else None
    finally:
        os.close(descriptor)


def done_bytes(path: Path, size_bytes: int) -> int:
    """How much has come of the file at `path`, which another process may be writing."""
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
    except FileNotFoundError:  # between our open() and the lock, whoever had it made it the blob, or put it aside
        return False


def _counts(descriptor: int, size_bytes: int) -> array[int] | None:
    """The ledger; None where there is none that makes sense, as in a file that another version began."""
    if os.fstat(descriptor).st_size == size_bytes:  # all had come, and who cut the ledger off was killed over it
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

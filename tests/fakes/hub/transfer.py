"""Content over a socket: ranges, and what goes wrong with them."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.fakes.hub.content import Content, OnDisk, read, size_bytes
from tests.fakes.hub.faults import Cut, Fault, LengthWrong, RangeIgnored, RangeShifted, Slow, WrongByte

_PIECE_BYTES = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Part:
    """A response with content: its status, the part of the content it holds, and its Content-Range."""

    status: int
    begin: int
    count: int
    content_range: str | None


def part(content: Content, asked: str | None, faults: Iterable[Fault]) -> Part:
    """Return the response to a Range header; several ranges get the whole file, as HTTP allows."""
    size = size_bytes(content)
    match = _RANGE.fullmatch(asked or "")
    if match is None or match.groups() == ("", "") or any(isinstance(fault, RangeIgnored) for fault in faults):
        return Part(200, 0, size, None)
    first, last = match.groups()
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if begin >= size or begin > end:
        return Part(416, 0, 0, f"bytes */{size}")
    return _with_lies(Part(206, begin, end + 1 - begin, None), size, faults)


def _with_lies(part: Part, size: int, faults: Iterable[Fault]) -> Part:
    begin, said_begin, said_size = part.begin, part.begin, size
    for fault in faults:
        if isinstance(fault, RangeShifted):
            begin = min(begin + fault.by_bytes, size)
            said_begin = begin if fault.admitted else said_begin
        elif isinstance(fault, LengthWrong):
            said_size += fault.by_bytes
    count = min(part.count, size - begin)
    return Part(206, begin, count, f"bytes {said_begin}-{said_begin + count - 1}/{said_size}")


@dataclass
class Gate:
    """While `hold` is cleared, responses stop half-way and set `held`."""

    hold: threading.Event
    held: threading.Event
    closing: threading.Event


def send(connection: socket.socket, content: Content, part: Part, faults: Iterable[Fault], gate: Gate) -> Iterator[int]:
    """Send the content and yield the size of each piece. Raises BrokenPipeError if a fault cuts it."""
    slow = [fault.bytes_per_second for fault in faults if isinstance(fault, Slow)]
    cuts = [fault.after_bytes for fault in faults if isinstance(fault, Cut)]
    wrong = [fault.at for fault in faults if isinstance(fault, WrongByte)]
    if isinstance(content, OnDisk) and gate.hold.is_set() and not (slow or cuts or wrong):
        with content.path.open("rb") as file:
            yield connection.sendfile(file, part.begin, part.count)
        return
    piece_bytes = max(min(_PIECE_BYTES, int(min(slow) / 20)), 1) if slow else _PIECE_BYTES
    stops = sorted({half := part.count // 2, *cuts})
    sent = 0
    while sent < part.count:
        if sent in cuts:
            raise BrokenPipeError("cut here")
        if sent == half and not gate.hold.is_set():
            gate.held.set()
            gate.hold.wait()
        ends = [sent + piece_bytes, part.count, *(stop for stop in stops if stop > sent)]
        piece = read(content, part.begin + sent, min(ends) - sent)
        connection.sendall(_damaged(piece, part.begin + sent, wrong))
        sent += len(piece)
        yield len(piece)
        if slow and gate.closing.wait(len(piece) / min(slow)):
            raise BrokenPipeError("the hub ends")


def _damaged(piece: bytes, begin: int, wrong: list[int]) -> bytes:
    for at in wrong:
        if begin <= at < begin + len(piece):
            damaged = bytearray(piece)
            damaged[at - begin] ^= 0xFF
            piece = bytes(damaged)
    return piece

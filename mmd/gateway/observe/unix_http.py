"""A small HTTP client for Unix sockets, for the gateway: httpx would cost it 8 MB of memory."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

import httptools

_UCRED = struct.Struct("3i")  # pid, uid, gid
_READ_BYTES = 1 << 16


@dataclass(slots=True)
class Response:
    server_pid: int
    status: int = 0
    body: bytearray = field(default_factory=bytearray)


async def request(
    path: str | Path, method: str, target: str, body: bytes = b"", *, max_bytes: int = 1 << 20
) -> Response:
    """Send a request to the server that listens on the Unix socket `path`, and return its whole response.

    Raises OSError, and ValueError if the response is not HTTP/1.1 or has more than `max_bytes`.
    """
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        response = Response(_peer_pid(writer.get_extra_info("socket")))
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n"
        writer.write(head.encode() + body)
        await _read(reader, response, max_bytes)
    finally:
        writer.close()
    return response


async def _read(reader: asyncio.StreamReader, response: Response, max_bytes: int) -> None:
    events = _ParserEvents(response)
    parser = httptools.HttpResponseParser(events)
    while not events.is_complete:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the connection ended before the response did")
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError(f"not an HTTP/1.1 response: {error}") from error
        if len(response.body) > max_bytes:
            raise ValueError(f"a response of more than {max_bytes:,} bytes")
    response.status = parser.get_status_code()


class _ParserEvents:
    """What httptools calls."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self._response.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


def _peer_pid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[0])

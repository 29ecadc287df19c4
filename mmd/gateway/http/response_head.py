"""Edit the head of a response on its way to the client. Its body passes through untouched.

There are two edits: "connection: close" while the gateway shuts down, and CORS headers for pages of allowed origins.
"""

from __future__ import annotations

from collections.abc import Callable

from mmd.gateway.http.cors import cors_lines

_BLANK_LINE = b"\r\n\r\n"
_SWITCHING_PROTOCOLS = b"HTTP/1.1 101"


class ResponseWriter:
    """Writes the responses of one client connection, which owns it.

    `write` is the transport's own method except for a head that needs an edit: the pieces of a body cost no extra call.
    The first piece of a response holds its whole head.
    """

    __slots__ = ("_announces_close", "_origin", "_write_to_transport", "has_announced_close", "write")

    def __init__(self, write_to_transport: Callable[[bytes], None]) -> None:
        self.write = self._write_to_transport = write_to_transport
        self.has_announced_close = False  # the client knows that the connection closes after this response
        self._announces_close = False
        self._origin = b""

    def announce_close(self) -> None:
        """Add "connection: close" to the next head."""
        self._announces_close = True
        self.write = self._write_head

    def allow_origin(self, origin: bytes) -> None:
        """Add CORS headers to the next head."""
        self._origin = origin
        self.write = self._write_head

    def _write_head(self, data: bytes) -> None:
        if self._origin:
            data = with_cors_headers(data, self._origin)
        if self._announces_close:
            data = with_connection_close(data)
            self.has_announced_close = True
        self._origin = b""
        self._announces_close = False
        self.write = self._write_to_transport
        self._write_to_transport(data)


def with_connection_close(data: bytes) -> bytes:
    """Add "connection: close" to the head that `data` begins with. A switch to a WebSocket keeps its own Connection."""
    start = _final_head_start(data)
    if data.startswith(_SWITCHING_PROTOCOLS, start):
        return data
    first_line_end = data.index(b"\r\n", start)
    return data[:first_line_end] + b"\r\nconnection: close" + data[first_line_end:]


def with_cors_headers(data: bytes, origin: bytes) -> bytes:
    """Replace the CORS headers of the head that `data` begins with: a browser that finds two of them rejects both."""
    start = _final_head_start(data)
    end = data.index(_BLANK_LINE, start)
    lines = data[start:end].split(b"\r\n")
    kept = [line for line in lines if line[:15].lower() != b"access-control-"]
    return data[:start] + b"\r\n".join((*kept, *cors_lines(origin))) + data[end:]


def _final_head_start(data: bytes) -> int:
    """Skip interim responses (1xx), which engines may send before the real one."""
    start = 0
    while data.startswith(b"HTTP/1.1 1", start) and not data.startswith(_SWITCHING_PROTOCOLS, start):
        start = data.index(_BLANK_LINE, start) + len(_BLANK_LINE)
    return start

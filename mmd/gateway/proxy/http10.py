"""Responses for HTTP/1.0 clients, which do not support chunks: the bare body, ended by closing the connection."""

from __future__ import annotations

import httptools

_NOT_FOR_HTTP10 = frozenset({b"transfer-encoding", b"connection", b"keep-alive", b"trailer"})


class Http10Rewriter:
    """Rewrites one response that `EngineResponse` has found well-formed; owned by `ClientResponse`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._written: list[bytes] = []
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._lines: list[bytes] = []
        self._head_complete = False

    def feed(self, data: bytes) -> bytes:
        self._parser.feed_data(data)
        written = b"".join(self._written)
        self._written.clear()
        return written

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._reset()  # drops an interim response, which HTTP/1.0 does not have

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete and name.lower() not in _NOT_FOR_HTTP10:
            self._lines.append(name + b": " + value)

    def on_headers_complete(self) -> None:
        self._head_complete = True
        status = self._parser.get_status_code()
        if status >= 200:
            first = b"HTTP/1.1 %d %b" % (status, self._reason)
            self._written.append(b"\r\n".join((first, *self._lines, b"Connection: close", b"", b"")))

    def on_body(self, part: bytes) -> None:
        self._written.append(part)

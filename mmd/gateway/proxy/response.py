"""Track an engine's response while its bytes pass through: where it ends, and how it is framed."""

from __future__ import annotations

import re
from time import monotonic

import httptools

_FRAMED = re.compile(rb"(?i)\r\n(?:content-length|transfer-encoding):")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:[^\r\n]*chunked")
_EVENT_STREAM = re.compile(rb"(?i)\r\ncontent-type:[ \t]*text/event-stream")


class UpgradeAccepted(Exception):
    """The engine has switched protocols; `received` is its 101 response and any bytes after it."""

    def __init__(self, received: bytes) -> None:
        super().__init__()
        self.received = received


class EngineResponse:
    """Finds the end of each response on one engine connection, which owns it; `expect` resets it for the next one.

    Headers stay unparsed bytes and are searched only if a response breaks off, which is rare. A head is held back until
    the body begins: vLLM sends the head of a stream at once, even while it sleeps, and a request can be sent again as
    long as nothing of its response has been passed on.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.expect(has_body=True)

    def expect(self, *, has_body: bool, may_switch: bool = False) -> None:
        """Reset for the response to a new request. `has_body` is False for HEAD, whatever the response's headers say;
        `may_switch` is True for a WebSocket request.
        """
        self._has_body = has_body
        self._may_switch = may_switch
        self._interim = False
        self._head = b""
        self._head_count = 0  # interim ones included
        self._head_complete = False
        self._at_chunk_boundary = True
        self._last = b""
        self.started = False  # a part of it has been passed on
        self.started_at = 0.0  # on the monotonic clock
        self.status = 0
        self.complete = False
        self.keep_alive = False
        self.reusable = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to pass on now, possibly b"". Raises ValueError if they are not the response to one request,
        and UpgradeAccepted if the engine switched to a WebSocket as requested.
        """
        if not self.started:
            self._head += data
        self._last = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            if not self._may_switch:
                raise ValueError("switched to a protocol that was not requested") from error
            self.started = True
            raise UpgradeAccepted(self._head) from error
        except httptools.HttpParserError as error:
            raise ValueError(f"not an HTTP/1.1 response: {error}") from error
        return data if self.started else self._begin()

    def _begin(self) -> bytes:
        self.started = self.complete or (self._head_complete and not self._is_bare_head())
        self.started_at = monotonic()
        return self._head if self.started else b""

    def _is_bare_head(self) -> bool:
        end = b"\r\n\r\n"
        return self._head.endswith(end) and self._head.count(end) == self._head_count

    def end(self) -> bytes:
        """Return the held-back head of a response that has no body and ends with its connection."""
        return b"" if self.started else self._head

    @property
    def ends_with_connection(self) -> bool:
        return self._head_complete and not _FRAMED.search(self._head)

    @property
    def is_event_stream(self) -> bool:
        return self._head_complete and _EVENT_STREAM.search(self._head) is not None

    def as_next_piece(self, data: bytes) -> bytes | None:
        """Return `data` framed as the next piece of this response's body; None if no piece can be added here."""
        if not self._head_complete:
            return None
        if self.ends_with_connection:
            return data
        # CRLF excludes a position in the middle of a chunk's size line.
        if _CHUNKED.search(self._head) and self._at_chunk_boundary and self._last.endswith(b"\r\n"):
            return b"%x\r\n%b\r\n" % (len(data), data)
        return None

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("more than one response")

    def on_headers_complete(self) -> None:
        self._head_count += 1
        self.status = self._parser.get_status_code()
        self._interim = 100 <= self.status < 200
        if self._interim:
            return
        self._head_complete = True
        if not self._has_body:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

    def on_chunk_header(self) -> None:
        self._at_chunk_boundary = False

    def on_chunk_complete(self) -> None:
        self._at_chunk_boundary = True

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        self.complete = True
        self.keep_alive = self.reusable = self._parser.should_keep_alive()

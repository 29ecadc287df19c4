"""Bytes from a client in, whole requests out."""

from __future__ import annotations

from collections import deque

import httptools

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.policy import ListenerInfo, RequestPolicy, body_too_large, head_too_large, malformed
from mmd.gateway.http.request import RawHeaders, Request, RequestHead

_MOST_FRAMING = 16  # bytes of it for a byte of the body; chunks of one byte have five


class RequestParser:
    """Parses one connection. A Failure in `ready` is the last thing in it: what comes after is not looked at."""

    def __init__(self, policy: RequestPolicy, listener: ListenerInfo) -> None:
        self.ready: deque[Request | ErrorResponse] = deque()
        self.after_upgrade = b""  # what came with the last request, which is for a WebSocket
        self.owes_continue = False  # the client holds its body back until it is told to go on
        self._policy = policy
        self._listener = listener
        self._limits = policy.limits
        self._parser = httptools.HttpRequestParser(self)
        self._ended = False
        self._begun = False
        self._fed_bytes = 0
        self._head_fed_bytes = 0  # in earlier calls, for a head that is not complete yet
        self._start_over()

    def _start_over(self) -> None:
        self._url = b""
        self._headers: RawHeaders = []
        self._head: RequestHead | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_fed_bytes = 0  # chunk headers included; of the calls after the one that completed the head

    @property
    def mid_message(self) -> bool:
        return self._begun and not self._ended

    @property
    def awaits_head(self) -> bool:
        """Whether what has come of a message is not even its head."""
        return self._head is None

    def feed(self, data: bytes) -> None:
        head_before = self._head if self._begun else None
        while data and not self._ended:
            self._fed_bytes = len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._head is not None and self._head.is_websocket and not self._ended:
                    self._end_as_websocket(self._head, data[upgrade.args[0] :])
                    break
                # An offer the client does not insist on (curl --http2 makes one). The parser takes it for accepted and
                # the body for another protocol, so it is given the same request without the offer.
                self._parser = httptools.HttpRequestParser(self)
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                continue
            except httptools.HttpParserError as error:
                self._refuse(malformed(f"not an HTTP/1.1 request: {error}"))
            break
        if self._begun and self._head is None:
            self._head_fed_bytes += len(data)
            if self._head_fed_bytes > self._limits.head_bytes:
                self._refuse(head_too_large(self._limits))
        elif head_before is not None and self._head is head_before and self._begun:
            self._count_framing(len(data))

    def _count_framing(self, fed_bytes: int) -> None:
        """Chunks of one byte are allowed, endless extensions and trailers are not: nobody else counts those."""
        self._body_fed_bytes += fed_bytes
        most_bytes = self._limits.head_bytes + _MOST_FRAMING * self._body_bytes
        if self._body_fed_bytes - self._body_bytes > most_bytes:
            self._refuse(malformed("the body is mostly chunk headers and trailers"))

    def _end_as_websocket(self, head: RequestHead, rest: bytes) -> None:
        head.keep_alive = False  # whatever comes of it, what follows is no HTTP
        self._ended = True
        self.after_upgrade = rest
        self.ready.append(Request(head, b""))

    def _head_without_upgrade(self) -> bytes:
        assert self._head is not None
        first = b"%b %b HTTP/%b" % (self._head.method, self._url, self._head.version.encode())
        lines = [name + b": " + value for name, value in self._headers if name.lower() != b"upgrade"]
        return b"\r\n".join((first, *lines, b"", b""))

    def _refuse(self, failure: ErrorResponse) -> None:
        if not self._ended:
            self._ended = True
            self.owes_continue = False
            self.ready.append(failure if self._head is None else failure.for_path(self._head.path))

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._begun = True
        self._start_over()

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # else it is a trailer, which goes no further
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        self._head = RequestHead.read(method, self._url, version, parser.should_keep_alive(), self._headers)
        if failure := self._long_head() or self._policy.check(self._head, self._listener):
            self._refuse(failure)
        self.owes_continue = self._head.expects_continue and not self._ended
        self._head_fed_bytes = 0

    def _long_head(self) -> ErrorResponse | None:
        if self._head_fed_bytes + self._fed_bytes <= self._limits.head_bytes:
            return None  # so much was not even sent; the sum below is for the rest
        head_bytes = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        return head_too_large(self._limits) if head_bytes > self._limits.head_bytes else None

    def on_body(self, part: bytes) -> None:
        if self._ended:
            return
        self.owes_continue = False
        self._body_bytes += len(part)
        if self._body_bytes > self._limits.body_bytes:
            self._body.clear()
            self._refuse(body_too_large(self._limits))
            return
        self._body.append(part)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # it comes again, see feed
        self._begun = False
        self.owes_continue = False
        if self._head is not None and not self._ended:
            self.ready.append(Request(self._head, b"".join(self._body)))
            self._body.clear()

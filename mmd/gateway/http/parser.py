"""Turn the bytes of one client connection into complete requests."""

from __future__ import annotations

from collections import deque

import httptools

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.policy import ListenerInfo, RequestPolicy, body_too_large, head_too_large, malformed
from mmd.gateway.http.request import RawHeaders, Request, RequestHead

_MAX_FRAMING = 16  # bytes of chunk framing per byte of body; chunks of one byte need five


class RequestParser:
    """Parses the requests of one connection, with llhttp.

    The client connection feeds bytes and takes what is complete from `ready`, in order. An ErrorResponse there is
    always the last entry: nothing after a refused request is parsed.
    """

    def __init__(self, policy: RequestPolicy, listener: ListenerInfo) -> None:
        self.ready: deque[Request | ErrorResponse] = deque()
        self.listener = listener
        self.after_upgrade = b""  # bytes after the request that switches to a WebSocket
        self.owes_continue = False  # the client waits for "100 Continue" before it sends the body
        self._policy = policy
        self._limits = policy.limits
        self._parser = httptools.HttpRequestParser(self)
        self._ended = False
        self._begun = False
        self._fed_bytes = 0  # in this call of feed()
        self._head_fed_bytes = 0  # in earlier calls, of a head that is still incomplete
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: RawHeaders = []
        self._head: RequestHead | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_fed_bytes = 0  # with chunk headers, in the calls of feed() after the head

    @property
    def mid_message(self) -> bool:
        return self._begun and not self._ended

    @property
    def awaits_head(self) -> bool:
        """True if the head of the current message is still incomplete."""
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
                # An optional offer, as of curl --http2. The parser would treat it as accepted and skip the body, so it
                # is given the same request without the offer.
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
        """Allow chunks of one byte, refuse endless chunk extensions and trailers, which no other limit counts."""
        self._body_fed_bytes += fed_bytes
        max_bytes = self._limits.head_bytes + _MAX_FRAMING * self._body_bytes
        if self._body_fed_bytes - self._body_bytes > max_bytes:
            self._refuse(malformed("the body is mostly chunk headers and trailers"))

    def _end_as_websocket(self, head: RequestHead, rest: bytes) -> None:
        head.keep_alive = False  # no HTTP request follows, even if the engine refuses the switch
        self._ended = True
        self.after_upgrade = rest
        self.ready.append(Request(head, b""))

    def _head_without_upgrade(self) -> bytes:
        assert self._head is not None
        first = b"%b %b HTTP/%b" % (self._head.method, self._url, self._head.version.encode())
        lines = [name + b": " + value for name, value in self._headers if name.lower() != b"upgrade"]
        return b"\r\n".join((first, *lines, b"", b""))

    def _refuse(self, error: ErrorResponse) -> None:
        if not self._ended:
            self._ended = True
            self.owes_continue = False
            self.ready.append(error if self._head is None else error.for_path(self._head.path))

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._begun = True
        self._reset()

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # later ones are trailers, which are dropped
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        self._head = RequestHead.read(method, self._url, version, parser.should_keep_alive(), self._headers)
        if error := self._head_too_large() or self._policy.check(self._head, self.listener):
            self._refuse(error)
        self.owes_continue = self._head.expects_continue and not self._ended
        self._head_fed_bytes = 0

    def _head_too_large(self) -> ErrorResponse | None:
        if self._head_fed_bytes + self._fed_bytes <= self._limits.head_bytes:
            return None  # fewer bytes were sent than the limit allows; the sum below is slower
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
            return  # feed() parses the request again, without the offer
        self._begun = False
        self.owes_continue = False
        if self._head is not None and not self._ended:
            self.ready.append(Request(self._head, b"".join(self._body)))
            self._body.clear()

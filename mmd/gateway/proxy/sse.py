"""An event stream that the gateway begins while its request still waits, and that the engine's answer continues."""

from __future__ import annotations

import httptools

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.error_format import ErrorFormat
from mmd.gateway.http.request import Request
from mmd.gateway.proxy.json_keys import TopLevelKeys
from mmd.gateway.schedule.model_queue import Place

# Where clients know what to do with a comment. Elsewhere "stream" means nothing, or something else.
_STREAMING_PATHS = frozenset({b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/messages"})
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_KEYS = TopLevelKeys("stream")
_LAST_CHUNK = b"0\r\n\r\n"
_MOST_UNSTREAMED_BYTES = 1 << 20  # of an answer that is no stream, and has to become one event


def wants_stream(request: Request) -> bool:
    """Whether the client reads server-sent events; asked only of requests that have waited for a while."""
    head = request.head
    if head.is_http10 or head.path not in _STREAMING_PATHS:
        return False
    return _KEYS.values(request.body).get("stream") == b"true"


class EarlySseStream:
    """What the client is sent of one answer whose head it has already."""

    def __init__(self, dialect: ErrorFormat) -> None:
        self._dialect = dialect
        self._parser = httptools.HttpResponseParser(self)
        self._is_event_stream = False
        self._pieces: list[bytes] = []
        self._unstreamed = b""

    @staticmethod
    def begin() -> bytes:
        return _HEAD

    @staticmethod
    def comment(model_id: str, place: Place) -> bytes:
        """What clients skip and people read. A name can hold no line's end, see registry.ids."""
        about = "" if place.expected_seconds is None else f", about {place.expected_seconds:.0f} s"
        return _chunk(f": waiting for {model_id}: turn {place.turn} of {place.turns}{about}\n\n".encode())

    @staticmethod
    def failure(failure: ErrorResponse) -> bytes:
        return _chunk(failure.event()) + _LAST_CHUNK

    @staticmethod
    def event(data: bytes) -> bytes:
        return _chunk(data)

    def feed(self, data: bytes) -> bytes:
        """The next bytes of an answer that has been found well-formed already, in the framing of this stream."""
        self._parser.feed_data(data)
        pieces, self._pieces = b"".join(self._pieces), []
        return pieces

    def end(self) -> bytes:
        """What is to follow the engine's whole answer."""
        if self._is_event_stream:
            return _LAST_CHUNK
        # The engine refused the request, mostly: its error has to come as an event now.
        is_named = self._parser.get_status_code() >= 400 and self._dialect is not ErrorFormat.OPENAI
        name = b"event: error\n" if is_named else b""
        return _chunk(b"%bdata: %b\n\n" % (name, b"".join(self._unstreamed.splitlines()))) + _LAST_CHUNK

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._is_event_stream = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._is_event_stream = value.lower().startswith(b"text/event-stream")

    def on_body(self, part: bytes) -> None:
        if self._is_event_stream:
            self._pieces.append(_chunk(part))
        elif len(self._unstreamed) < _MOST_UNSTREAMED_BYTES:
            self._unstreamed += part


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

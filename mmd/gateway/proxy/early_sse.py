"""Start an event stream (SSE) while its request waits for the model; the engine's response continues the stream."""

from __future__ import annotations

import httptools

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.error_format import ErrorFormat
from mmd.gateway.http.request import Request
from mmd.gateway.proxy.json_keys import TopLevelKeys
from mmd.gateway.schedule.queue_status import QueuePosition

# The paths whose clients skip comments. On others "stream" has no meaning, or a different one.
_STREAMING_PATHS = frozenset({b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/messages"})
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_KEYS = TopLevelKeys("stream")
_LAST_CHUNK = b"0\r\n\r\n"
_MAX_UNSTREAMED_BYTES = 1 << 20  # of a response that is not a stream and must fit into one event


def wants_stream(request: Request) -> bool:
    """True if the client reads server-sent events. Reads the body again, so it is called only for waiting requests."""
    head = request.head
    if head.is_http10 or head.path not in _STREAMING_PATHS:
        return False
    return _KEYS.values(request.body).get("stream") == b"true"


class EarlySseStream:
    """Encodes the rest of a response whose head has been sent before an engine responded; owned by `ClientResponse`."""

    def __init__(self, error_format: ErrorFormat) -> None:
        self._error_format = error_format
        self._parser = httptools.HttpResponseParser(self)
        self._is_event_stream = False
        self._pieces: list[bytes] = []
        self._unstreamed = b""

    @staticmethod
    def begin() -> bytes:
        return _HEAD

    @staticmethod
    def comment(model_id: str, position: QueuePosition) -> bytes:
        """Encode a comment for people; clients skip it. A model id has no line breaks, see registry.ids."""
        text = f": waiting for {model_id}: turn {position.turn} of {position.turns}"
        for one in position.waits_for:
            text += f", after {one.requests} running response{'s' if one.requests > 1 else ''} of {one.model}"
        if position.expected_seconds is not None:
            text += f", about {position.expected_seconds:.0f} s"
        return _chunk(f"{text}\n\n".encode())

    @staticmethod
    def error(error: ErrorResponse) -> bytes:
        """Encode an error event and the end of the stream."""
        return _chunk(error.event()) + _LAST_CHUNK

    @staticmethod
    def event(data: bytes) -> bytes:
        return _chunk(data)

    def feed(self, data: bytes) -> bytes:
        """Reframe the next bytes of a response that `EngineResponse` has found well-formed."""
        self._parser.feed_data(data)
        pieces, self._pieces = b"".join(self._pieces), []
        return pieces

    def end(self) -> bytes:
        """Return what follows the engine's complete response: its body as one event if it was not a stream."""
        if self._is_event_stream:
            return _LAST_CHUNK
        # Usually the engine refused the request: its error is sent as an event.
        is_named = self._parser.get_status_code() >= 400 and self._error_format is not ErrorFormat.OPENAI
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
        elif len(self._unstreamed) < _MAX_UNSTREAMED_BYTES:
            self._unstreamed += part


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

"""The response to one request, in the framing that its client understands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.error_format import ErrorFormat
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.request import RequestHead
from mmd.gateway.http.response_head import ResponseWriter
from mmd.gateway.proxy.early_sse import EarlySseStream
from mmd.gateway.proxy.exposed import redact_error
from mmd.gateway.proxy.http10 import Http10Rewriter
from mmd.gateway.proxy.response import EngineResponse
from mmd.gateway.proxy.websocket import WebSocketTunnel
from mmd.gateway.schedule.queue_status import QueuePosition


class ExchangeClient(Protocol):
    """The client connection that a request came over."""

    listener_kind: ListenerKind
    writing_paused: bool
    writer: ResponseWriter

    def finished(self, *, keep_alive: bool) -> None:
        """The response has been written; the next request may follow."""
        ...

    def join_engine(self, engine: asyncio.Transport) -> WebSocketTunnel:
        """Connect the client with the engine, which has switched to a WebSocket."""
        ...

    def terminate(self, *, reset: bool) -> None:
        """End the connection with the response incomplete; `reset` it if a plain close would look like its end."""
        ...


class ClientResponse:
    """Writes one response; owned by the exchange.

    | framing | for | what is written |
    |---|---|---|
    | none | HTTP/1.1 | the engine's bytes, as they are |
    | `Http10Rewriter` | HTTP/1.0 | the bare body, ended by closing the connection |
    | `EarlySseStream` | a stream whose head was sent while its request waited | the engine's body, in our chunks |
    """

    __slots__ = ("_client", "_head", "_may_keep_alive", "_rewriter", "_writer", "early_stream")

    def __init__(self, client: ExchangeClient, head: RequestHead) -> None:
        self._client = client
        self._writer = client.writer
        self._head = head
        self._rewriter: Http10Rewriter | EarlySseStream | None = Http10Rewriter() if head.is_http10 else None
        self._may_keep_alive = head.keep_alive and not head.is_http10
        self.early_stream: EarlySseStream | None = None

    def write(self, data: bytes) -> None:
        """Pass on a piece of the engine's response; the first one holds its whole head."""
        self._writer.write(data if self._rewriter is None else self._rewriter.feed(data))

    def write_comment(self, model_id: str, position: QueuePosition) -> None:
        """Write a comment with the request's position in the queue. The first one begins the stream."""
        if self.early_stream is None:
            self._rewriter = self.early_stream = EarlySseStream(ErrorFormat.for_path(self._head.path))
            self._writer.write(self.early_stream.begin())
        if self._head.exposed_model is not None:
            position = replace(position, waits_for=())  # a tunnel's clients must not learn of other models
        self._writer.write(self.early_stream.comment(model_id, position))

    def complete(self, *, keep_alive: bool) -> None:
        """The engine's response has been written to its end."""
        if self.early_stream is not None:
            self._writer.write(self.early_stream.end())
        self._client.finished(keep_alive=keep_alive and self._may_keep_alive)

    def write_error(self, error: ErrorResponse) -> None:
        """Respond with an error; no part of an engine's response has been written."""
        keep_alive = self._may_keep_alive
        error = self._shown(error)
        if self.early_stream is not None:
            self._writer.write(self.early_stream.error(error))
        else:
            has_body = self._head.response_has_body
            self._writer.write(error.response(close=not keep_alive, has_body=has_body))
        self._client.finished(keep_alive=keep_alive)

    def _shown(self, error: ErrorResponse) -> ErrorResponse:
        """Return an error in the client's format; a tunnel's clients must not learn of other models."""
        if (exposed := self._head.exposed_model) is not None:
            error = redact_error(exposed, error)
        return error.for_path(self._head.path)

    def break_off(self, response: EngineResponse, error: ErrorResponse) -> None:
        """End an incomplete response, so that the client can tell: by an error event in a stream, else by how the
        connection ends.
        """
        error = self._shown(error)
        if self.early_stream is not None:
            self._writer.write(self.early_stream.event(error.event()))
            self._client.terminate(reset=False)
            return
        is_http10 = self._head.is_http10
        event = error.event() if response.is_event_stream else None
        if event is not None and not is_http10:
            event = response.as_next_piece(event)
        if event is not None:
            self._writer.write(event)
        self._client.terminate(reset=event is None and (is_http10 or response.ends_with_connection))

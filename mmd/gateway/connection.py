"""A client connection: takes its requests one at a time, in order, and starts what responds to each."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from functools import partial
from typing import Protocol

from mmd.gateway.http.cors import preflight_response
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.parser import RequestParser
from mmd.gateway.http.policy import ListenerInfo, RequestPolicy
from mmd.gateway.http.request import Request
from mmd.gateway.http.response_head import ResponseWriter
from mmd.gateway.http.sockets import is_other_user
from mmd.gateway.http.timeouts import ReadTimeouts
from mmd.gateway.proxy.exchange import Exchange
from mmd.gateway.proxy.websocket import WebSocketTunnel

_log = logging.getLogger(__name__)
_INT = struct.Struct("i")
_CLOSE_WITH_RESET = struct.pack("ii", 1, 0)
_NOT_CONNECTED = asyncio.Transport()  # each of its methods raises NotImplementedError

# Written here, because health checks must not import the ASGI stack, which is a fifth of the gateway's memory.
_HEALTHY = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"status":"ok"}'
_HEALTHY_LAST = _HEALTHY.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


class GatewayServices(Protocol):
    """What all connections share; the gateway implements it."""

    @property
    def limits(self) -> Limits: ...

    @property
    def policy(self) -> RequestPolicy: ...

    @property
    def read_timeouts(self) -> ReadTimeouts: ...

    @property
    def is_draining(self) -> bool: ...

    def opened(self, connection: ClientConnection) -> None: ...

    def closed(self, connection: ClientConnection) -> None: ...

    def exchange(self, client: ClientConnection, request: Request) -> Exchange: ...

    def serve_management(self, transport: asyncio.Transport, request: Request) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One connection of a client, from accept to close; an asyncio protocol.

    | state | set | data that arrives | ends |
    |---|---|---|---|
    | idle, reading a request | neither | goes to the parser | when a request is complete |
    | responding | `_exchange` | is kept unparsed, up to `ahead_bytes` | when the exchange calls `finished` |
    | ended | `_ended` | is dropped | when the transport closes |

    It leaves this class for good in two ways: `join_engine` gives the transport to a WebSocketTunnel, and `_hand_over`
    to the ASGI server. Health checks, preflights and errors are handled here.
    """

    def __init__(self, gateway: GatewayServices, listener_kind: ListenerKind) -> None:
        self.listener_kind = listener_kind
        self.writing_paused = False
        self._gateway = gateway
        self._ahead = bytearray()  # arrived while a request was being responded to
        self._exchange: Exchange | None = None
        self._advancing = False
        self._ended = False  # no further request of this client is served
        self._transport = _NOT_CONNECTED
        self._parser = RequestParser(gateway.policy, ListenerInfo(listener_kind, "", is_exposed=True))
        self.writer = ResponseWriter(self._transport.write)

    @property
    def is_idle(self) -> bool:
        """True if no request is being read or responded to."""
        return self._exchange is None and not self._parser.mid_message

    @property
    def awaits_more(self) -> bool:
        """True if the client has to send the rest of a request."""
        return self._exchange is None and self._parser.mid_message and not self._ended

    def time_out(self) -> None:
        """Refuse a request whose rest did not arrive in time."""
        part = "head" if self._parser.awaits_head else "body"
        hint = "curl -d @FILE http://…   # sends a whole request"
        self._refuse(ErrorResponse(408, f"the request's {part} did not arrive in time", hint, "request_timeout"))

    def reject(self, error: ErrorResponse) -> None:
        """Respond with an error before any request, and close: used if there are too many connections."""
        self._transport.write(error.response(close=True))
        self.close()

    def close(self) -> None:
        self._ended = True
        self._transport.close()

    def start_draining(self) -> None:
        """The gateway shuts down: announce "connection: close" in the next response and close soon if idle.

        A client that has just connected gets `grace_seconds` to send its request. Without the announcement a client
        could lose a request that it sends on the connection later. A response that has started cannot announce it, so
        its client gets the same time afterwards.
        """
        if self._exchange is None or not self._exchange.has_started:
            self.writer.announce_close()
        if self._exchange is None:
            asyncio.get_running_loop().call_later(self._gateway.limits.grace_seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """Close, unless a request is being served or has arrived unread."""
        if self._ended or not self.is_idle or self._parser.ready or self._ahead:
            return
        if not _unread_bytes(self._transport):
            self.close()

    def abort(self) -> None:
        self._transport.abort()

    # -- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.writer = ResponseWriter(transport.write)
        self._parser.listener = _listener_info(self.listener_kind, transport)
        if self.listener_kind is ListenerKind.LOCAL and is_other_user(transport.get_extra_info("socket")):
            self._ended = True
            transport.abort()
        else:
            self._gateway.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return  # the rest of a refused request, see _refuse
        if self._exchange is None:
            self._parser.feed(data)
            self._advance()
            return
        self._ahead += data
        if len(self._ahead) > self._gateway.limits.ahead_bytes:
            self._transport.pause_reading()  # hides that the client closes, but few send this much ahead

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._gateway.closed(self)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.cancel()

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._exchange is not None:
            self._exchange.resume()

    # -- called by the exchange

    def finished(self, *, keep_alive: bool) -> None:
        self._exchange = None
        if not keep_alive or self.writer.has_announced_close:
            self.close()
            return
        if self._gateway.is_draining:
            self.start_draining()
        if not self._advancing:
            self._advance()

    def join_engine(self, engine: asyncio.Transport) -> WebSocketTunnel:
        from_client, self._ahead = self._parser.after_upgrade + bytes(self._ahead), bytearray()
        tunnel = WebSocketTunnel(
            self._transport,
            engine,
            linger_seconds=self._gateway.limits.linger_seconds,
            ended=partial(self.connection_lost, None),
        )
        tunnel.begin(from_client)
        return tunnel

    def terminate(self, *, reset: bool) -> None:
        self._exchange = None
        if not reset:
            self.close()
            return
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RESET)
        self.abort()

    def _advance(self) -> None:
        """Serve what is ready, until a response or more data must be waited for."""
        self._advancing = True
        ready = self._parser.ready
        while self._exchange is None and not self._ended:
            if ready:
                self._serve(ready.popleft())
            elif self._ahead:
                ahead, self._ahead = bytes(self._ahead), bytearray()
                self._transport.resume_reading()
                self._parser.feed(ahead)
            else:
                break
        self._advancing = False
        if self._parser.owes_continue and self._exchange is None and not self._ended:
            self._parser.owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._exchange is None and self._parser.mid_message:
            self._gateway.read_timeouts.expect_more(self, of_head=self._parser.awaits_head)

    def _serve(self, request: Request | ErrorResponse) -> None:
        if isinstance(request, ErrorResponse):
            self._refuse(request)
        elif request.head.is_preflight:
            self.writer.write(preflight_response(request.head))
            self.finished(keep_alive=request.head.keep_alive)
        elif request.head.is_health_check:
            self.writer.write(_HEALTHY if request.head.keep_alive else _HEALTHY_LAST)
            self.finished(keep_alive=request.head.keep_alive)
        elif request.head.is_inference:
            if b"origin" in request.head.gateway_headers:
                self.writer.allow_origin(request.head.origin)
            self._exchange = self._gateway.exchange(self, request)
            self._start(self._exchange)
        else:
            self._hand_over(request)

    def _start(self, exchange: Exchange) -> None:
        try:
            exchange.start()
        except Exception:  # noqa: BLE001 - the edge of a request, logged with its traceback
            _log.exception("a request failed before it was forwarded")
            self._transport.write(INTERNAL.response(close=True))
            self.close()

    def _hand_over(self, request: Request) -> None:
        """Give the connection to the ASGI server, which closes it after this request."""
        self._ended = True
        self._gateway.closed(self)
        self._transport.resume_reading()
        self._gateway.serve_management(self._transport, request)

    def _refuse(self, error: ErrorResponse) -> None:
        """Respond with an error and close later: closing with unread data would reset the connection, and the client
        could lose the response.
        """
        self._ended = True
        self._transport.write(error.response(close=True))
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(self._gateway.limits.linger_seconds, self._transport.close)


def _listener_info(listener_kind: ListenerKind, transport: asyncio.Transport) -> ListenerInfo:
    is_local = listener_kind is ListenerKind.LOCAL
    return ListenerInfo.of(listener_kind, "" if is_local else str(transport.get_extra_info("sockname")[0]))


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes have arrived and are still in the kernel."""
    result = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(_INT.size))
    return int(_INT.unpack(result)[0])

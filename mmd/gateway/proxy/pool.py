"""Connections to engines: kept alive, with one request at a time on each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from mmd.gateway.proxy.response import EngineResponse, UpgradeAccepted

_FULL_BACKLOG_PAUSE_SECONDS = 0.005
_NOT_CONNECTED = asyncio.Transport()  # each of its methods raises NotImplementedError


class ResponseHandler(Protocol):
    """The exchange, as the engine connection calls it. After one of the last three calls it is not called again."""

    @property
    def on_data(self) -> Callable[[bytes], None]:
        """Take a piece of the response; the first one holds its whole head."""
        ...

    def on_complete(self, *, keep_alive: bool) -> None:
        """The response is complete; `keep_alive` is what the engine reports about its connection."""
        ...

    def on_upgrade(self, engine: asyncio.Transport, received: bytes) -> None:
        """The engine switched to a WebSocket: the handler owns the transport now and must forward `received`."""
        ...

    def on_lost(self, connection: EngineConnection) -> None:
        """The connection ended before the response did; `connection.response` holds its state."""
        ...


class EngineConnection(asyncio.Protocol):
    """One connection to an engine: owned by the pool while idle, by the handler from `send` to the response's end."""

    def __init__(self, pool: Pool, address: str) -> None:
        self.address = address
        self.response = EngineResponse()
        self.reused = False
        self._pool = pool
        self._handler: ResponseHandler | None = None
        self._transport = _NOT_CONNECTED

    def send(self, handler: ResponseHandler, request: bytes, *, has_body: bool, may_switch: bool) -> None:
        self._handler = handler
        self.response.expect(has_body=has_body, may_switch=may_switch)
        self._transport.write(request)

    def abort(self) -> None:
        """Drop the response. The closed connection makes the engine stop its work."""
        self._handler = None
        self._transport.abort()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def is_usable(self) -> bool:
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        handler = self._handler
        if handler is None:  # unrequested data would be read as the response to the next request
            self._transport.abort()
            return
        response = self.response
        try:
            forwarded = response.feed(data)
        except ValueError:
            self._fail()
            return
        except UpgradeAccepted as accepted:
            self._handler = None
            handler.on_upgrade(self._transport, accepted.received)
            return
        if forwarded:
            handler.on_data(forwarded)
        if response.complete:
            self._finish(handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.discard(self)
        handler = self._handler
        if handler is not None and exc is None and self.response.ends_with_connection:
            self._handler = None
            if held_back := self.response.end():
                handler.on_data(held_back)
            handler.on_complete(keep_alive=False)
        else:
            self._fail()

    def _finish(self, handler: ResponseHandler) -> None:
        self._handler = None
        if self.response.reusable:
            self._transport.resume_reading()  # reading may be paused for a slow client
            self._pool.release(self)
        else:
            self._transport.close()
        handler.on_complete(keep_alive=self.response.keep_alive)

    def _fail(self) -> None:
        handler, self._handler = self._handler, None
        self._transport.abort()
        if handler is not None:
            handler.on_lost(self)


class Pool:
    """The idle connections to each engine. The most recently used one is taken first, so that the others time out."""

    def __init__(self, *, max_idle: int, connect_seconds: float) -> None:
        self._max_idle = max_idle
        self._connect_seconds = connect_seconds
        self._idle: dict[str, list[EngineConnection]] = {}

    @property
    def idle_count(self) -> int:
        """How many connections are idle, to all engines."""
        return sum(map(len, self._idle.values()))

    def take(self, address: str) -> EngineConnection | None:
        """Return an idle connection, or None. The caller owns it until the response is complete."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                connection.reused = True
                return connection
        return None

    async def connect(self, address: str) -> EngineConnection:
        """Open a new connection. Raises OSError if no process listens, TimeoutError (an OSError) if none accepts."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_seconds):
            connected = await _connect(address)
        _, protocol = await loop.create_unix_connection(lambda: EngineConnection(self, address), sock=connected)
        return protocol

    def release(self, connection: EngineConnection) -> None:
        """Keep a connection whose response is complete, or close it if enough are idle."""
        idle = self._idle.setdefault(connection.address, [])
        if len(idle) < self._max_idle:
            idle.append(connection)
        else:
            connection.abort()

    def discard(self, connection: EngineConnection) -> None:
        """Forget a connection that has ended."""
        idle = self._idle.get(connection.address)
        if idle is None:
            return
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[connection.address]

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()


async def _connect(address: str) -> socket.socket:
    """Return a connected socket. asyncio's own connect mistakes EAGAIN (a full backlog) for success: SO_ERROR is 0."""
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        while True:
            try:
                connecting.connect(address)
            except BlockingIOError:
                await asyncio.sleep(_FULL_BACKLOG_PAUSE_SECONDS)  # no event reports room in a backlog
            else:
                return connecting
    except BaseException:
        connecting.close()
        raise

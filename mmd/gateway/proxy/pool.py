"""Connections to engines: kept alive, one request at a time on each."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from mmd.gateway.proxy.response import EngineResponse, UpgradeAccepted

_FULL_BACKLOG_PAUSE_SECONDS = 0.005


class ResponseHandler(Protocol):
    """Who gets the answer."""

    def on_data(self, data: bytes) -> None: ...

    def on_complete(self, *, keep_alive: bool) -> None: ...

    def on_upgrade(self, engine: asyncio.Transport, received: bytes) -> None:
        """The engine speaks WebSocket from now on. The transport is the asker's, and `received` to be forwarded on."""
        ...

    def on_lost(self, connection: EngineConnection) -> None:
        """The connection ended before the answer did; `connection.response` says how far it came."""
        ...


class EngineConnection(asyncio.Protocol):
    def __init__(self, pool: Pool, address: str) -> None:
        self.address = address
        self.response = EngineResponse()
        self.reused = False
        self._pool = pool
        self._handler: ResponseHandler | None = None
        self._transport: asyncio.Transport

    def send(self, handler: ResponseHandler, request: bytes, *, has_body: bool, may_switch: bool) -> None:
        self._handler = handler
        self.response.expect(has_body=has_body, may_switch=may_switch)
        self._transport.write(request)

    def abort(self) -> None:
        """Nobody wants the answer any more, and the engine learns it from the closed connection."""
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
        if handler is None:  # an engine that speaks unasked would answer the next request with this
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
            self._transport.resume_reading()  # a slow client may have had it paused
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
    """Idle connections by the engine's address; the one used last goes first, so that the rest can time out."""

    def __init__(self, *, max_idle: int, connect_seconds: float) -> None:
        self._max_idle = max_idle
        self._connect_seconds = connect_seconds
        self._idle: dict[str, list[EngineConnection]] = {}

    def take(self, address: str) -> EngineConnection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                connection.reused = True
                return connection
        return None

    async def connect(self, address: str) -> EngineConnection:
        """A fresh connection; OSError where nobody listens, TimeoutError (one of them) where nobody accepts."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_seconds):
            connected = await _connect(address)
        _, protocol = await loop.create_unix_connection(lambda: EngineConnection(self, address), sock=connected)
        return protocol

    def release(self, connection: EngineConnection) -> None:
        idle = self._idle.setdefault(connection.address, [])
        if len(idle) < self._max_idle:
            idle.append(connection)
        else:
            connection.abort()

    def discard(self, connection: EngineConnection) -> None:
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
    """Connected; asyncio's own connect takes the EAGAIN of a full backlog for success, because SO_ERROR is 0 then."""
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        while True:
            try:
                connecting.connect(address)
            except BlockingIOError:
                await asyncio.sleep(_FULL_BACKLOG_PAUSE_SECONDS)  # there is no event for room in a backlog
            else:
                return connecting
    except BaseException:
        connecting.close()
        raise

"""A WebSocket between a client and an engine: bytes are copied both ways, unread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WebSocketTunnel:
    """Two connections joined into one; owned by the exchange. When one ends, the other is closed, and aborted if its
    unsent data is not read within `linger_seconds`.
    """

    def __init__(
        self, client: asyncio.Transport, engine: asyncio.Transport, *, linger_seconds: float, ended: Callable[[], None]
    ) -> None:
        """`ended` is called once, when the client's connection has closed."""
        self._client = client
        self._engine = engine
        self._linger_seconds = linger_seconds
        self._ended = ended

    def begin(self, from_client: bytes) -> None:
        """Take over both transports. `from_client` is what the client has already sent."""
        self._client.set_protocol(_End(self._engine, self._client_gone))
        self._engine.set_protocol(_End(self._client, self._engine_gone))
        self._client.resume_reading()
        if from_client:
            self._engine.write(from_client)

    def abort(self) -> None:
        """Close both connections at once, without sending what is buffered."""
        self._client.abort()
        self._engine.abort()

    def _client_gone(self) -> None:
        self._engine.close()
        asyncio.get_running_loop().call_later(self._linger_seconds, self._engine.abort)
        self._ended()

    def _engine_gone(self) -> None:
        self._client.close()
        asyncio.get_running_loop().call_later(self._linger_seconds, self._client.abort)


class _End(asyncio.Protocol):
    """The protocol of one connection: forwards its data to the other, at the pace at which that one is read."""

    def __init__(self, other: asyncio.Transport, gone: Callable[[], None]) -> None:
        self._other = other
        self._gone = gone
        self.data_received = other.write  # type: ignore[method-assign]  # no call of ours in between

    def pause_writing(self) -> None:
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

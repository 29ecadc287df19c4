"""Serve the requests that are not for an engine with an ordinary ASGI application on the same port."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.hub_process import Hub, HubChild
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.observer import Observer
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

_MAX_CLIENT_BYTES = 64 << 10  # over a WebSocket: nothing that a client says there is looked at


class Management:
    """The management API: serves connections that `ClientConnection` hands over.

    starlette and uvicorn, a fifth of the gateway's memory, are imported for the first of them, in a thread: it takes
    half a second, and connections wait for it while streams go on.
    """

    def __init__(self, models: Models, scheduler: Scheduler, observer: Observer, feed: Feed, hub: Hub | None) -> None:
        self._models = models
        self._scheduler = scheduler
        self._observer = observer
        self._hub = hub or HubChild()
        self._downloads = Downloads(self._hub, feed)
        self._server: _Server | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []  # connections, and what they have sent

    def serve_connection(self, transport: asyncio.Transport, received: bytes) -> None:
        if self._server is not None:
            self._server.serve(transport, received)
            return
        transport.pause_reading()
        self._waiting.append((transport, received))
        if self._loading is None:
            self._loading = spawn("management API", self._load())

    async def drain(self) -> None:
        """Return when every request that is being served has been answered."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        while self._server is not None and self._server.state.tasks:
            await asyncio.wait(self._server.state.tasks)

    async def close(self) -> None:
        await self._downloads.close()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self._server is not None:
            self._server.close()

    async def _load(self) -> None:
        try:
            self._server = await asyncio.to_thread(self._made_server)
            while self._waiting:
                transport, received = self._waiting.pop(0)
                if not transport.is_closing():
                    self._server.serve(transport, received)
        finally:
            self._loading = None
            for transport, _ in self._waiting:
                transport.abort()
            self._waiting.clear()

    def _made_server(self) -> _Server:
        from uvicorn.config import Config
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
        from uvicorn.server import ServerState

        from mmd.gateway.api.routes import application

        app = application(self._models, self._scheduler, self._observer, self._hub, self._downloads)
        # Logs go to the journal through the root logger; requests are not logged.
        config = Config(
            app,
            http="httptools",
            ws="wsproto",
            ws_max_size=_MAX_CLIENT_BYTES,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
        )
        config.load()
        return _Server(config, ServerState(), HttpToolsProtocol)


@dataclass(frozen=True, slots=True)
class _Server:
    """The ASGI application behind uvicorn's HTTP protocol."""

    config: Config
    state: ServerState
    protocol: type[HttpToolsProtocol]

    def serve(self, transport: asyncio.Transport, received: bytes) -> None:
        protocol = self.protocol(self.config, self.state, {"transport": transport})  # for a stream that must abort it
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        protocol.data_received(received)

    def close(self) -> None:
        for connection in list(self.state.connections):
            connection.shutdown()
        for task in self.state.tasks:
            task.cancel()

"""Everything that is not for an engine: an ordinary ASGI application on the same port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.hub_process import Hub, HubChild
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.observer import Observer
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_MOST_SAID_BYTES = 64 << 10  # over a WebSocket: nothing that a client says there is looked at


class Management:
    """Serves connections that the front has handed over; starlette and uvicorn are imported by the first of them."""

    def __init__(self, models: Models, scheduler: Scheduler, observer: Observer, feed: Feed, hub: Hub | None) -> None:
        self._models = models
        self._scheduler = scheduler
        self._observer = observer
        self._hub = hub or HubChild()
        self._downloads = Downloads(self._hub, feed)
        self._config: Config | None = None
        self._state: ServerState | None = None

    def serve_connection(self, transport: asyncio.Transport, received: bytes) -> None:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        config, state = self._server()
        protocol = HttpToolsProtocol(config, state, {"transport": transport})  # for who must abort it
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(received)

    async def drain(self) -> None:
        """Returns when every request that is being served has been answered."""
        while self._state is not None and self._state.tasks:
            await asyncio.wait(self._state.tasks)

    async def close(self) -> None:
        await self._downloads.close()
        if self._state is not None:
            for connection in list(self._state.connections):
                connection.shutdown()
            for task in self._state.tasks:
                task.cancel()

    def _server(self) -> tuple[Config, ServerState]:
        if self._config is None or self._state is None:
            from uvicorn.config import Config
            from uvicorn.server import ServerState

            from mmd.gateway.api.routes import application

            app = application(self._models, self._scheduler, self._observer, self._hub, self._downloads)
            # Logs go to the journal through the root logger, and a request is no event worth a line.
            self._config = Config(
                app,
                http="httptools",
                ws="wsproto",
                ws_max_size=_MOST_SAID_BYTES,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
            )
            self._config.load()
            self._state = ServerState()
        return self._config, self._state

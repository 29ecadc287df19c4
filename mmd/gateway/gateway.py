"""The gateway: makes the parts that all connections share, and starts and ends them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection

from mmd.gateway.api.asgi import Management
from mmd.gateway.api.hub_process import Hub
from mmd.gateway.connection import ClientConnection
from mmd.gateway.http.error import TOO_MANY
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.policy import RequestPolicy
from mmd.gateway.http.request import Request
from mmd.gateway.http.timeouts import ReadTimeouts
from mmd.gateway.observe.counters import Counters
from mmd.gateway.observe.feed import Feed
from mmd.gateway.observe.observer import Observer
from mmd.gateway.proxy.exchange import Exchange, ExchangeContext
from mmd.gateway.proxy.pool import Pool
from mmd.gateway.schedule.events import CutResponses
from mmd.gateway.schedule.idle import IdleUnloader
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.gateway.schedule.suspend import SuspendCoordinator

_log = logging.getLogger(__name__)


class Gateway:
    """Owns the scheduler, the engine connections, the observers and the management API.

    `new_connection` is the protocol factory for `loop.create_server`; `drain` ends everything.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits | None = None,
        policy: RequestPolicy | None = None,
        *,
        hub: Hub | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.policy = policy or RequestPolicy(self.limits)
        self.read_timeouts = ReadTimeouts(self.limits)
        self.is_draining = False
        self.feed = Feed()
        self._models = models
        self.scheduler = Scheduler(models, self.limits)
        self.idle = IdleUnloader(models, self.scheduler)
        self.pool = Pool(max_idle=self.limits.idle_engine_connections, connect_seconds=self.limits.connect_seconds)
        self.counters = Counters()
        self.observer = Observer(models, self.scheduler, self.feed, self.counters, self.limits)
        self._management = Management(models, self.scheduler, self.observer, self.feed, hub)
        self._connections: dict[ClientConnection, None] = {}  # oldest first
        self._connection_closed = asyncio.Event()
        self._context = ExchangeContext(models, self.scheduler, self.pool, self.limits, self.counters, self.idle)
        self.suspension = SuspendCoordinator(models, self.scheduler, self.limits, self._abort_for_suspend)
        models.follow(self._requeue_if_asleep)
        self.scheduler.on_cut(self._cut)

    @property
    def connections(self) -> Collection[ClientConnection]:
        """The open client connections, oldest first; those handed over to the management API are not among them."""
        return self._connections.keys()

    @property
    def requests_at_engines(self) -> int:
        """How many requests engines are working on."""
        return len(self._context.with_engine)

    def observe(self) -> None:
        """Start to publish events and to collect metrics, until `drain`."""
        self.observer.begin()

    def new_connection(self, listener_kind: ListenerKind = ListenerKind.MAIN) -> ClientConnection:
        return ClientConnection(self, listener_kind)

    def exchange(self, client: ClientConnection, request: Request) -> Exchange:
        return Exchange(self._context, client, request)

    def serve_management(self, transport: asyncio.Transport, request: Request) -> None:
        self._management.serve_connection(transport, request.for_management())

    def opened(self, connection: ClientConnection) -> None:
        self._connections[connection] = None
        if self.is_draining:  # accepted just before; systemd keeps later ones for the next gateway
            connection.start_draining()
        elif len(self._connections) > self.limits.connections and connection.listener_kind is not ListenerKind.LOCAL:
            self._make_room_for(connection)

    def closed(self, connection: ClientConnection) -> None:
        self._connections.pop(connection, None)
        self._connection_closed.set()

    async def drain(self, timeout_seconds: float) -> None:
        """Shut down: let running requests finish, accept no new ones, and drop those left after the timeout."""
        self.is_draining = True
        self.feed.close()
        for connection in self._connections:
            connection.start_draining()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._until(lambda: not self._connections)
                await self._management.drain()
        except TimeoutError:
            self.scheduler.close()
            await asyncio.sleep(0)  # requests that waited write their error responses now
            for connection in list(self._connections):
                connection.abort()
        await self.observer.end()
        self.read_timeouts.close()
        self.scheduler.close()
        await self._management.close()
        self.pool.close()

    def _make_room_for(self, newcomer: ClientConnection) -> None:
        """Close an idle connection; if none is idle, reject the new one."""
        idle = next((each for each in self._connections if each.is_idle and each is not newcomer), None)
        del self._connections[idle or newcomer]  # at once: more may be accepted before it is closed
        if idle is not None:
            idle.close()
        else:
            newcomer.reject(TOO_MANY)

    def _requeue_if_asleep(self) -> None:
        """Take back the requests to engines that have fallen asleep before they responded.

        The scheduler learns of it a moment after the units change, and an engine that goes to sleep still accepts
        requests: those would hang until it is woken.
        """
        count = sum(exchange.requeue_if_asleep() for exchange in tuple(self._context.with_engine))
        if count:
            _log.info("%d requests reached models that had just fallen asleep; they wait again", count)

    def _abort_for_suspend(self) -> None:
        for exchange in tuple(self._context.with_engine):
            exchange.abort_for_suspend()

    def _cut(self, cut: CutResponses) -> dict[str, int]:
        """End the running responses of models that are unloaded; return how many were cut, by model."""
        exchanges = [one for one in self._context.with_engine if one.model_id in cut.models]
        return dict(Counter(one.model_id for one in exchanges if one.cut(cut)))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._connection_closed.clear()
            await self._connection_closed.wait()

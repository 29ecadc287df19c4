"""The gateway: what all its connections share."""

from __future__ import annotations

import asyncio
import logging
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
from mmd.gateway.observe.feed import EventKind, Feed
from mmd.gateway.observe.observer import Observer
from mmd.gateway.proxy.exchange import Exchange, ExchangeContext
from mmd.gateway.proxy.pool import Pool
from mmd.gateway.schedule.idle import IdleUnloader
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.gateway.schedule.suspend import SuspendCoordinator

_log = logging.getLogger(__name__)

_QUEUE_SECONDS = 0.25


class Gateway:
    """A factory of protocols for `loop.create_server`, and their common end."""

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
        self._queue_will_be_told = False
        self.scheduler.follow(self._tell_queue_soon)
        self.idle = IdleUnloader(models, self.scheduler)
        self.pool = Pool(max_idle=self.limits.idle_engine_connections, connect_seconds=self.limits.connect_seconds)
        self.counters = Counters()
        self.observer = Observer(models, self.scheduler, self.feed, self.counters, self.limits)
        self._management = Management(models, self.scheduler, self.observer, self.feed, hub)
        self._connections: dict[ClientConnection, None] = {}  # by when they came
        self._closed_one = asyncio.Event()
        self._context = ExchangeContext(models, self.scheduler, self.pool, self.limits, self.counters, self.idle)
        self.suspension = SuspendCoordinator(models, self.scheduler, self.limits, self._abort_for_suspend)
        models.follow(self._requeue_if_asleep)

    @property
    def connections(self) -> Collection[ClientConnection]:
        """The open client connections, oldest first; those handed over to the management API are not among them."""
        return self._connections.keys()

    @property
    def requests_at_engines(self) -> int:
        """How many requests engines are working on."""
        return len(self._context.with_engine)

    def observe(self) -> None:
        """Begin to tell what happens, until the end."""
        self.observer.begin()

    def new_connection(self, listener_kind: ListenerKind = ListenerKind.MAIN) -> ClientConnection:
        return ClientConnection(self, listener_kind)

    def exchange(self, client: ClientConnection, request: Request) -> Exchange:
        return Exchange(self._context, client, request)

    def serve_management(self, transport: asyncio.Transport, request: Request) -> None:
        self._management.serve_connection(transport, request.for_management())

    def opened(self, connection: ClientConnection) -> None:
        self._connections[connection] = None
        if self.is_draining:  # accepted in the same moment; systemd keeps those that come later
            connection.start_draining()
        elif len(self._connections) > self.limits.connections and connection.listener_kind is not ListenerKind.LOCAL:
            self._make_room_for(connection)

    def closed(self, connection: ClientConnection) -> None:
        self._connections.pop(connection, None)
        self._closed_one.set()

    async def drain(self, bound_seconds: float) -> None:
        """Lets what has begun finish, takes nothing new, and drops what is left in the end."""
        self.is_draining = True
        self.feed.close()
        for connection in self._connections:
            connection.start_draining()
        try:
            async with asyncio.timeout(bound_seconds):
                await self._until(lambda: not self._connections)
                await self._management.drain()
        except TimeoutError:
            self.scheduler.close()
            await asyncio.sleep(0)  # those who waited write their refusals now
            for connection in list(self._connections):
                connection.abort()
        await self.observer.end()
        self.read_timeouts.close()
        self.scheduler.close()
        await self._management.close()
        self.pool.close()

    def _make_room_for(self, newcomer: ClientConnection) -> None:
        """Somebody who asks for nothing goes; where all of them are busy, it is the newcomer."""
        idle = next(
            (connection for connection in self._connections if connection.is_idle and connection is not newcomer), None
        )
        del self._connections[idle or newcomer]  # not when its connection is lost: others may come in between
        if idle is not None:
            idle.close()
        else:
            newcomer.reject(TOO_MANY)

    def _tell_queue_soon(self) -> None:
        """Requests come and go by the thousand: listeners are told a few times a second."""
        if self.feed.has_listeners and not self._queue_will_be_told:
            self._queue_will_be_told = True
            asyncio.get_running_loop().call_later(_QUEUE_SECONDS, self._tell_queue)

    def _tell_queue(self) -> None:
        self._queue_will_be_told = False
        self.feed.publish(EventKind.QUEUE, self.scheduler.queue())

    def _requeue_if_asleep(self) -> None:
        """Takes back what was sent to an engine that has fallen asleep, for whatever reason, before it answered.

        The view that requests are admitted by follows the units a moment later, and an engine that is told to sleep
        accepts requests all the same: those would hang until somebody wakes it.
        """
        count = sum(exchange.requeue_if_asleep() for exchange in tuple(self._context.with_engine))
        if count:
            _log.info("%d requests came too late for models that sleep now, and wait for their turn again", count)

    def _abort_for_suspend(self) -> None:
        for exchange in tuple(self._context.with_engine):
            exchange.abort_for_suspend()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._closed_one.clear()
            await self._closed_one.wait()

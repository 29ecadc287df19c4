"""The gateway: what all its connections share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mmd.gateway.engine import Pool
from mmd.gateway.exchange import Exchange
from mmd.gateway.feed import Feed
from mmd.gateway.front import Front
from mmd.gateway.head import Request
from mmd.gateway.hub_child import Hub
from mmd.gateway.limits import Limits
from mmd.gateway.management import Management
from mmd.gateway.models import Models
from mmd.gateway.switchboard import Switchboard

_log = logging.getLogger(__name__)


class Gateway:
    """A factory of protocols for `loop.create_server`, and their common end."""

    def __init__(self, models: Models, limits: Limits | None = None, *, hub: Hub | None = None) -> None:
        self.limits = limits or Limits()
        self.is_draining = False
        self.feed = Feed()
        self._models = models
        self._switchboard = Switchboard(models, drain_seconds=self.limits.drain_seconds)
        self._pool = Pool(most_idle=self.limits.idle_engine_connections, connect_seconds=self.limits.connect_seconds)
        self._management = Management(models, self._switchboard, self.feed, hub)
        self._fronts: set[Front] = set()
        self._closed_one = asyncio.Event()
        self._asked: set[Exchange] = set()
        models.follow(self._retract)

    def front(self) -> Front:
        return Front(self)

    def exchange(self, client: Front, request: Request) -> Exchange:
        return Exchange(self._models, self._switchboard, self._pool, self._asked, client, request)

    def serve_management(self, transport: asyncio.Transport, request: Request) -> None:
        self._management.adopt(transport, request.for_management())

    def opened(self, front: Front) -> None:
        self._fronts.add(front)
        if self.is_draining:  # accepted in the same moment; systemd keeps those that come later
            front.close()

    def closed(self, front: Front) -> None:
        self._fronts.discard(front)
        self._closed_one.set()

    async def drain(self, bound_seconds: float) -> None:
        """Lets what has begun finish, takes nothing new, and drops what is left in the end."""
        self.is_draining = True
        self.feed.close()
        for front in [front for front in self._fronts if front.is_idle]:
            front.close()
        try:
            async with asyncio.timeout(bound_seconds):
                await self._until(lambda: not self._fronts)
                await self._management.drain()
        except TimeoutError:
            for front in list(self._fronts):
                front.abort()
        self._switchboard.close()
        await self._management.close()
        self._pool.close()

    def _retract(self) -> None:
        """Takes back what was sent to an engine that has fallen asleep, for whatever reason, before it answered.

        The view that requests are admitted by follows the units a moment later, and an engine that is told to sleep
        accepts requests all the same: those would hang until somebody wakes it.
        """
        count = sum(exchange.retract() for exchange in tuple(self._asked))
        if count:
            _log.info("%d requests came too late for models that sleep now, and wait for their turn again", count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._closed_one.clear()
            await self._closed_one.wait()

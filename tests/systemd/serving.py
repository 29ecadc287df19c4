"""A gateway in the process of the test: only a test's own controller has engines that sleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mmd.gateway.gateway import Gateway
from mmd.gateway.schedule.systemd_models import SystemdModels
from mmd.units.watch import Watch
from tests.systemd.world import World

_DRAIN_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that listens. Its view of the units does not change until `watch` runs."""

    gateway: Gateway
    watch: Watch
    address: str


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Served]:
    async with world.controller() as controller:
        watch = Watch(controller.manager)
        await watch.refresh()
        gateway = Gateway(SystemdModels(controller, watch))
        server = await asyncio.get_running_loop().create_server(gateway.new_connection, "127.0.0.1", 0)
        try:
            yield Served(gateway, watch, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        finally:
            server.close()
            await gateway.drain(_DRAIN_TIMEOUT_SECONDS)


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these in the background and cancel them at the end; an error of theirs is raised there."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):  # and nothing else
                await task

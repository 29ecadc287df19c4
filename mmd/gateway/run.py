"""`mmd gateway`: the gateway over the user manager, until it is told to end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from mmd.control.controller import Controller
from mmd.errors import ManagerUnreachable, WrongUsage
from mmd.gateway.limits import Limits
from mmd.gateway.live import LiveModels
from mmd.gateway.serve import serve
from mmd.settings import is_listen
from mmd.units.watch import Watch


def run(listen: str | None) -> None:
    """Serve on `HOST:PORT`, else on systemd's socket, else where mmd.toml says."""
    if listen is not None and not is_listen(listen):
        raise WrongUsage(f"{listen!r} is no HOST:PORT", hint="mmd gateway --listen 127.0.0.1:8000")
    asyncio.run(_serve(listen))


async def _serve(listen: str | None) -> None:
    async with Controller() as controller:
        host, _, port = (listen or controller.settings["gateway.listen"]).rpartition(":")
        limits = replace(Limits(), drain_seconds=controller.settings["gateway.drain_seconds"])
        watch = Watch(controller.manager)
        await watch.refresh()
        models = LiveModels(controller, watch)
        async with asyncio.TaskGroup() as tasks:
            followed = tasks.create_task(_follow(watch, controller))
            await serve(models, listen=(host, int(port)), limits=limits)
            followed.cancel()


async def _follow(watch: Watch, controller: Controller) -> None:
    """Keep the view up to date. Without the bus there is none, so the process ends, and systemd starts it anew."""
    watching = asyncio.create_task(watch.run())
    try:
        await controller.manager.closed()
        raise ManagerUnreachable("the connection to the user manager ended", hint="systemctl --user status")
    finally:
        watching.cancel()

"""`mmd gateway`: the gateway over the user manager, until it is told to end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from mmd.control.controller import Controller
from mmd.control.pressure import Kernel, Relief
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
    async with AsyncExitStack() as stack:
        controller = await stack.enter_async_context(Controller())
        host, _, port = (listen or controller.settings["gateway.listen"]).rpartition(":")
        bounds = ("drain_seconds", "max_wait_seconds", "min_residency_seconds")
        limits = replace(Limits(), **{name: controller.settings[f"gateway.{name}"] for name in bounds})
        watch = Watch(controller.manager)
        await watch.refresh()
        models = LiveModels(controller, watch)
        relief = Relief(controller, stack.enter_context(Kernel()))
        # The first to end ends all: without the bus or its watch the view would stand still, so systemd starts us anew.
        # No TaskGroup: it would wrap the error that the user is to see.
        tasks = [
            asyncio.create_task(work)
            for work in (
                serve(models, listen=(host, int(port)), limits=limits),
                watch.run(),
                relief.run(),
                _until_closed(controller),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


async def _until_closed(controller: Controller) -> None:
    await controller.manager.closed()
    raise ManagerUnreachable("the connection to the user manager ended", hint="systemctl --user status")

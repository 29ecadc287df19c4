"""The gateway's process: from its sockets to its orderly end."""

from __future__ import annotations

import asyncio
import signal

from mmd.gateway.gateway import Gateway
from mmd.gateway.limits import Limits
from mmd.gateway.listen import listening_sockets
from mmd.gateway.models import Models
from mmd.gateway.notify import notify

_DRAIN_BOUND_SECONDS = 30.0


async def serve(models: Models, *, listen: tuple[str, int] | None, limits: Limits | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what has begun.

    Listens on systemd's sockets where it is activated by them, else on `listen` or 127.0.0.1:8000. Raises MmdError
    where the port is taken, and WrongUsage where the address can be reached from other machines.
    """
    listeners = listening_sockets(listen)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    gateway = Gateway(models, limits)
    try:
        servers = [await loop.create_server(gateway.front, sock=listener, backlog=1024) for listener in listeners]
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        # Closes our descriptors only: systemd's own keep collecting connections for the next gateway.
        for server in servers:
            server.close()
        await gateway.drain(_DRAIN_BOUND_SECONDS)
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_number)

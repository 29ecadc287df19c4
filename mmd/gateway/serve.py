"""The gateway's process: from its sockets to its orderly end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from functools import partial

from mmd import __version__
from mmd.control.install.presence import Presence
from mmd.gateway.gateway import Gateway
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.policy import RequestPolicy
from mmd.gateway.http.sockets import Listener
from mmd.gateway.notify import notify
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.suspend import SuspendWatch
from mmd.tasks import keep_running, spawn

_DRAIN_BOUND_SECONDS = 30.0
_TURNS_TO_OPEN = 2  # of the event loop, from accepting a connection to telling its protocol


async def serve(
    models: Models,
    listeners: Sequence[Listener],
    *,
    limits: Limits | None = None,
    policy: RequestPolicy | None = None,
    follows_sleep: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what has begun. With `follows_sleep` nobody stays on the GPU while
    the machine is suspended.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    gateway = Gateway(models, limits, policy)
    gateway.observe()
    presence = Presence()
    beside = [spawn("idle models", keep_running("idle models", gateway.idle.run))]
    try:
        servers = [await _server(gateway, listener) for listener in listeners]
        if any(listener.kind is ListenerKind.LOCAL for listener in listeners):
            presence.announce(__version__)
        notify("READY=1")
        if follows_sleep:  # now: who waits for an answer is not to wait for logind
            beside.append(spawn("suspend", SuspendWatch(gateway.suspension).run(), logs=False))
        await _until(stop, beside)
        notify("STOPPING=1")
        presence.withdraw()
        await _stop_accepting(servers)
        await gateway.drain(_DRAIN_BOUND_SECONDS)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        presence.withdraw()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_number)


async def _until(stop: asyncio.Event, beside: Sequence[asyncio.Task[None]]) -> None:
    """Until the gateway is to stop; raises what the work beside it died of."""
    stopping = spawn("stop signal", stop.wait())
    await asyncio.wait((stopping, *beside), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for work in beside:
        if work.done():
            await work


async def _server(gateway: Gateway, listener: Listener) -> asyncio.Server:
    # Not create_unix_server: from Python 3.13 on that removes the socket's file at the end, and it may be systemd's.
    new_connection = partial(gateway.new_connection, listener.kind)
    return await asyncio.get_running_loop().create_server(new_connection, sock=listener.socket, backlog=1024)


async def _stop_accepting(servers: Sequence[asyncio.Server]) -> None:
    """systemd's own descriptors keep collecting connections for the next gateway."""
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening)
    # A server that is closed drops those whom it has just accepted, and with them what they ask for.
    for _ in range(_TURNS_TO_OPEN):
        await asyncio.sleep(0)
    for server in servers:
        server.close()

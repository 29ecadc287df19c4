"""Serve on sockets until a signal, then shut down in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial

from mmd import __version__
from mmd.control.install.presence import Presence
from mmd.gateway.gateway import Gateway
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.policy import RequestPolicy
from mmd.gateway.http.sockets import Listener
from mmd.gateway.schedule.games import GameWatch
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.suspend import SuspendWatch
from mmd.tasks import keep_running, spawn

_DRAIN_TIMEOUT_SECONDS = 30.0
_TURNS_TO_OPEN = 2  # of the event loop, from accept to connection_made


async def serve(
    models: Models,
    listeners: Sequence[Listener],
    *,
    limits: Limits | None = None,
    policy: RequestPolicy | None = None,
    follows_sleep: bool = False,
    yields_to_games: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish running requests. With `follows_sleep`, models leave the GPU while the
    machine is suspended; with `yields_to_games`, while a game runs.
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
        if follows_sleep:  # after READY: requests must not wait for logind
            beside.append(spawn("suspend", SuspendWatch(gateway.suspension).run(), logs=False))
        games = GameWatch(models.leases, gateway.scheduler)
        if yields_to_games:
            beside.append(spawn("games", keep_running("games", games.run), logs=False))
        else:
            await games.end()
        await _until(stop, beside)
        notify("STOPPING=1")
        presence.withdraw()
        await _stop_accepting(servers)
        await gateway.drain(_DRAIN_TIMEOUT_SECONDS)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        presence.withdraw()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_number)


async def _until(stop: asyncio.Event, beside: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the stop signal; raises the error of a background task that fails before."""
    stopping = spawn("stop signal", stop.wait())
    await asyncio.wait((stopping, *beside), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for work in beside:
        if work.done():
            await work


async def _server(gateway: Gateway, listener: Listener) -> asyncio.Server:
    # Not create_unix_server: since Python 3.13 it removes the socket's file at the end, which may belong to systemd.
    new_connection = partial(gateway.new_connection, listener.kind)
    return await asyncio.get_running_loop().create_server(new_connection, sock=listener.socket, backlog=1024)


async def _stop_accepting(servers: Sequence[asyncio.Server]) -> None:
    """Stop accepting; systemd's own descriptors keep collecting connections for the next gateway."""
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening)
    # Closing a server drops connections that it has just accepted, with their requests.
    for _ in range(_TURNS_TO_OPEN):
        await asyncio.sleep(0)
    for server in servers:
        server.close()


def notify(state: str) -> None:
    """Send `READY=1` and the like to systemd, as sd_notify(3) does; do nothing if systemd did not start the process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # abstract
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
        messenger.sendto(state.encode(), address)

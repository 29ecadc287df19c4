"""mmd's own static units in the user manager, over a connection of its own."""

from __future__ import annotations

from pathlib import Path

from mmd.control.tunnels import close_tunnels, tunnels
from mmd.paths import user_unit_dir
from mmd.units import static
from mmd.units.bus import Manager
from mmd.units.unit_files import EMBEDDING_SOCKET, MAIN_SOCKET


def is_installed() -> bool:
    return (user_unit_dir() / "mmd-boot.service").exists()


async def install(listen: str, embedding_listen: str | None) -> static.Installed:
    """Put the units in, with the gateway at these addresses, HOST:PORT. Raises as `static.install`."""
    addresses = {MAIN_SOCKET: listen} | ({EMBEDDING_SOCKET: embedding_listen} if embedding_listen else {})
    async with await Manager.connect() as manager:
        return await static.install(manager, addresses)


async def remove() -> tuple[Path, ...]:
    """Take the units out; what is exposed is so no more. Returns the files removed; none where there were none."""
    async with await Manager.connect() as manager:
        await close_tunnels(manager, [one.id for one in await tunnels(manager)])
        return await static.remove(manager)

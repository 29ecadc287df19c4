"""mmd's own static units in the user manager, over a connection of its own."""

from __future__ import annotations

from pathlib import Path

from mmd.paths import user_unit_dir
from mmd.units import static
from mmd.units.bus import Manager


def is_installed() -> bool:
    return (user_unit_dir() / "mmd-boot.service").exists()


async def install(listen: str) -> tuple[Path, ...]:
    """Put the units in, with the gateway at `listen`, HOST:PORT. Returns the files written."""
    async with await Manager.connect() as manager:
        return await static.install(manager, listen=listen)


async def remove() -> tuple[Path, ...]:
    """Take the units out. Returns the files removed; none where there were none."""
    async with await Manager.connect() as manager:
        return await static.remove(manager)

"""Install, remove and restart mmd's own units."""

from __future__ import annotations

import logging
from pathlib import Path

from mmd.control.install.addresses import gateway_addresses
from mmd.control.install.inspection import addresses_by_socket
from mmd.control.install.presence import running_version
from mmd.errors import GatewayFailed
from mmd.paths import user_unit_dir
from mmd.settings import read_settings
from mmd.units import static
from mmd.units.bus import JobResult, Manager
from mmd.units.bus_errors import BusError
from mmd.units.unit_files import BOOT, GATEWAY, MAIN_SOCKET, SOCKETS

_log = logging.getLogger(__name__)

_ALL_USERS = Path("/etc/systemd/user")  # links of `systemctl --global enable`


def loads_at_startup() -> bool:
    """True if a start of this user's manager loads models: mmd-boot.service is enabled and not masked."""
    folders = (user_unit_dir(), _ALL_USERS)
    is_enabled = any((folder / "default.target.wants" / BOOT).exists() for folder in folders)
    return is_enabled and not any(_is_mask(folder / BOOT) for folder in folders)


def _is_mask(file: Path) -> bool:
    """True for a mask as systemd defines it: a link to /dev/null or an empty file."""
    return file.is_char_device() or (file.is_file() and file.stat().st_size == 0)


async def install() -> static.InstallReport:
    """Install the units, with the gateway's addresses from mmd.toml. Raises what `static.install` raises."""
    addresses = addresses_by_socket(gateway_addresses(read_settings()))
    async with await Manager.connect() as manager:
        return await static.install(manager, addresses)


async def remove() -> bool:
    """Close all tunnels and remove the units. Returns False if there were none."""
    from mmd.control.tunnel.tunnels import close_tunnels, read_tunnels

    async with await Manager.connect() as manager:
        await close_tunnels(manager, [one.id for one in await read_tunnels(manager)])
        return await static.remove(manager)


async def restart_gateway() -> bool:
    """Restart the gateway if it runs, so that it reads mmd.toml. Returns True if it ran."""
    async with await Manager.connect() as manager:
        if not await _is_active(manager, GATEWAY):
            return False
        if await manager.run_job(GATEWAY, manager.try_restart(GATEWAY)) is not JobResult.DONE:
            raise GatewayFailed(
                "the gateway did not start after the restart", hint=f"systemctl --user status {GATEWAY}"
            )
        return True


async def socket_unit_at(manager: Manager, port: int) -> str | None:
    """Return the active socket unit that listens on this port."""
    for unit in await manager.units(SOCKETS):
        if unit.active_state == "active" and any(
            address.endswith(f":{port}") for address in await manager.addresses(unit.name)
        ):
            return unit.name
    return None


async def start_gateway(manager: Manager) -> None:
    """Start the gateway after a CLI activation, without waiting for it.

    A running gateway relieves memory pressure and unloads models before a suspend. If the user has stopped mmd.socket,
    nothing is started.
    """
    if running_version() is not None or not await _is_active(manager, MAIN_SOCKET):
        return
    try:
        await manager.start(GATEWAY)
    except BusError as error:  # for example masked; the model runs without it
        _log.warning("the gateway could not be started beside the model: %s", error.message)


async def _is_active(manager: Manager, name: str) -> bool:
    return any(unit.active_state == "active" for unit in await manager.units([name]))

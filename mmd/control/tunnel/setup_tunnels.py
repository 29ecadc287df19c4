"""The tunnels that a setup opens when it is activated, and closes when it is put to sleep or stopped."""

from __future__ import annotations

import asyncio

from mmd.control.models.setups import Setup
from mmd.control.tunnel.tunnels import TunnelState, TunnelStatus, close_tunnels, open_tunnel, read_tunnels
from mmd.units.bus import Manager
from mmd.units.names import tunnel_unit


async def open_setup(manager: Manager, setup: Setup) -> tuple[TunnelStatus, ...]:
    """Open the tunnels of a setup that are not open yet; return those when they are reachable.

    Raises what `open_tunnel` raises; all tunnels are tried before.
    """
    missing = await _closed(manager, setup)
    results = await asyncio.gather(*(open_tunnel(manager, one) for one in missing), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(result for result in results if isinstance(result, TunnelStatus))


async def start_tunnels(manager: Manager, setup: Setup) -> None:
    """Start the tunnels of a setup without waiting for them: at boot, the network may come up later."""
    for model_id in await _closed(manager, setup):
        await manager.start(tunnel_unit(model_id))


async def close_setup(manager: Manager, setup: Setup) -> tuple[str, ...]:
    """Close the tunnels of a setup, except those that have a hostname of their own. Return their models."""
    temporary = {one.id for one in await read_tunnels(manager) if not one.lasting}
    closing = tuple(one for one in setup.expose if one in temporary)
    await close_tunnels(manager, closing)
    return closing


async def _closed(manager: Manager, setup: Setup) -> list[str]:
    is_open = {one.id for one in await read_tunnels(manager) if one.state is not TunnelState.CLOSED}
    return [one for one in setup.expose if one not in is_open]

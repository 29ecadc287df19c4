"""Open, list and close Cloudflare tunnels, one systemd unit per exposed model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from mmd.control.state.engine_log import last_words
from mmd.control.state.status import exposed_urls
from mmd.control.tunnel import cloudflared, named_tunnel
from mmd.errors import MmdError, TunnelFailed, WrongUsage
from mmd.paths import tunnel_file
from mmd.registry.store import Registry
from mmd.units.bus import JobResult, Manager
from mmd.units.bus_errors import NoSuchUnit
from mmd.units.names import TUNNELS, tunnel_of, tunnel_unit
from mmd.units.unit_files import MAIN_SOCKET

_LOG_LINES = 40


class TunnelState(StrEnum):
    OPEN = "open"
    OPENING = "opening"  # or waiting for a retry
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """The tunnel of one model, as `mmd expose --json` prints it."""

    id: str
    state: TunnelState
    url: str | None
    lasting: bool  # a named tunnel, opened again at boot


async def list_tunnels() -> tuple[TunnelStatus, ...]:
    """Like `read_tunnels`, with its own connection to the user manager. Raises ManagerUnreachable."""
    async with await Manager.connect() as manager:
        return await read_tunnels(manager)


async def expose(model_id: str, named: named_tunnel.NamedTunnel | None) -> TunnelStatus:
    """Like `open_tunnel`, with its own connection to the user manager."""
    async with await Manager.connect() as manager:
        return await open_tunnel(manager, model_id, named)


async def gateway_address(model_id: str, *, is_named: bool) -> str:
    """Return HOST:PORT of the gateway's active socket, the target of a tunnel. (mmd.toml may have changed since.)

    Raises ManagerUnreachable, and WrongUsage if the socket has no TCP address or the tunnel's file is missing.
    """
    async with await Manager.connect() as manager:
        if not is_named and await _is_enabled(manager, tunnel_unit(model_id)):
            message = f"the tunnel of {model_id} is a named one, but {tunnel_file(model_id)} is missing"
            raise WrongUsage(message, hint=f"mmd expose --off {model_id}   # then expose it again")
        addresses = [address for address in await manager.addresses(MAIN_SOCKET) if not address.startswith("/")]
    if not addresses:
        raise WrongUsage(f"{MAIN_SOCKET} has no TCP address", hint=f"systemctl --user status {MAIN_SOCKET}")
    return addresses[0]


async def unexpose(model_id: str | None) -> tuple[str, ...]:
    """Close the tunnel of a model, or all tunnels. Returns the ids of their models."""
    async with await Manager.connect() as manager:
        closing = [one.id for one in await read_tunnels(manager) if model_id in (None, one.id)]
        await close_tunnels(manager, closing)
        return tuple(closing)


async def read_tunnels(manager: Manager) -> tuple[TunnelStatus, ...]:
    """Return the open, opening and named tunnels, sorted by model id."""
    units = {tunnel_of(unit.name): unit.active_state for unit in await manager.units((TUNNELS,))}
    urls, lasting = exposed_urls(), named_tunnel.model_ids()
    found = {model_id for model_id, active in units.items() if _state(active) is not TunnelState.CLOSED} | lasting
    return tuple(
        TunnelStatus(model_id, _state(units.get(model_id, "")), urls.get(model_id), model_id in lasting)
        for model_id in sorted(found)
    )


async def open_tunnel(manager: Manager, model_id: str, named: named_tunnel.NamedTunnel | None = None) -> TunnelStatus:
    """Open a tunnel to a model and return when it is reachable.

    With `named`, that name is kept and opened again at boot. Without it, the model's kept name is used, else a random
    name chosen by Cloudflare.

    Raises NoSuchModel, ProgramMissing, WrongUsage if mmd's units are not installed, and MmdError if cloudflared does
    not connect; the previous name is then kept.
    """
    Registry().get(model_id)
    cloudflared.program()
    return await (_open(manager, model_id) if named is None else _open_named(manager, model_id, named))


async def _open_named(manager: Manager, model_id: str, named: named_tunnel.NamedTunnel) -> TunnelStatus:
    """Open under a new name. If that fails, restore the previous name and tunnel."""
    unit = tunnel_unit(model_id)
    before = named_tunnel.NamedTunnel.load(model_id)
    was_open = any(one.active_state == "active" for one in await manager.units([unit]))
    named.save(model_id)
    try:
        await manager.run_job(unit, manager.stop(unit))
        return await _open(manager, model_id)
    except BaseException:
        if before is None:
            named_tunnel.delete(model_id)
        else:
            before.save(model_id)
            if was_open:
                await manager.start(unit)
        raise


async def _open(manager: Manager, model_id: str) -> TunnelStatus:
    """Start the unit and wait until the tunnel is open. If that fails, stop the unit."""
    unit = tunnel_unit(model_id)
    began_us = time.time_ns() // 1000
    await manager.reset_failed(unit)
    try:
        result = await manager.run_job(unit, manager.start(unit))
    except NoSuchUnit as error:
        raise WrongUsage("mmd's units are not installed", hint=f"mmd install && mmd expose {model_id}") from error
    except BaseException:
        await _give_up(unit)
        raise
    url = exposed_urls().get(model_id)
    if result is not JobResult.DONE or url is None:
        await manager.run_job(unit, manager.stop(unit))  # it would retry for ever
        raise await _failure(model_id, began_us)
    is_lasting = model_id in named_tunnel.model_ids()
    if is_lasting:
        await manager.enable([unit])
    return TunnelStatus(model_id, TunnelState.OPEN, url, is_lasting)


async def close_tunnels(manager: Manager, model_ids: Iterable[str]) -> None:
    """Close tunnels and delete their tokens."""
    for model_id in model_ids:
        unit = tunnel_unit(model_id)
        await manager.run_job(unit, manager.stop(unit))
        await manager.reset_failed(unit)
        # Disable before deleting the token: without it, the next boot would open the tunnel under a random name.
        if await _is_enabled(manager, unit):
            await manager.disable([unit])
        named_tunnel.delete(model_id)


async def _is_enabled(manager: Manager, unit: str) -> bool:
    return (await manager.unit_file_state(unit)).startswith("enabled")


async def _give_up(unit: str) -> None:
    """Stop the unit after Ctrl-C or a lost bus: no tunnel may open after the command was aborted."""
    with suppress(MmdError):  # the first error is the one to raise
        async with await Manager.connect() as manager:
            await manager.stop(unit)


def _state(active: str) -> TunnelState:
    match active:
        case "active":
            return TunnelState.OPEN
        case "activating" | "reloading":
            return TunnelState.OPENING
        case _:
            return TunnelState.CLOSED


async def _failure(model_id: str, began_us: int) -> MmdError:
    """Return an error with the last complaint in the log of cloudflared (or of mmd before it)."""
    identifier = f"mmd-tunnel-{model_id}"
    lines = await last_words(identifier, since_us=began_us, count=_LOG_LINES)
    reason = next((line for line in reversed(lines) if _is_complaint(line)), "it ended")
    # Cut cloudflared's time stamp and level, and mmd's prefix.
    reason = (reason.partition(" ERR ")[2] or reason).removeprefix("mmd: ")
    return TunnelFailed(
        f"the tunnel to {model_id} could not be opened: {reason}", hint=f"journalctl -t {identifier} -n 30"
    )


def _is_complaint(line: str) -> bool:
    """True for an error line. Fatal errors have no level; the complaint about our empty config file does not count."""
    is_info = any(level in line for level in (" INF ", " WRN ", " DBG "))
    is_hint = line.startswith(("See ", "  → "))
    return not is_info and not is_hint and "/dev/null" not in line

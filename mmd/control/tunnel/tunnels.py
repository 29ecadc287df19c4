"""Models that can be reached from the internet: a unit each, over Cloudflare."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from mmd.control.state.engine_log import last_words
from mmd.control.state.status import exposed_urls
from mmd.control.tunnel import cloudflared, named_tunnel
from mmd.errors import MmdError, WrongUsage
from mmd.paths import tunnel_file
from mmd.registry.store import Registry
from mmd.units.bus import JobResult, Manager, NoSuchUnit
from mmd.units.names import TUNNELS, tunnel_of, tunnel_unit
from mmd.units.unit_files import MAIN_SOCKET

_SAID_LINES = 40


class TunnelState(StrEnum):
    OPEN = "open"
    OPENING = "opening"  # or waiting to try again
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    id: str
    state: TunnelState
    url: str | None
    lasting: bool  # it has a name of its own, and is opened again when the machine comes up


async def list_tunnels() -> tuple[TunnelStatus, ...]:
    """As `read_tunnels`, over a connection of its own. Raises ManagerUnreachable."""
    async with await Manager.connect() as manager:
        return await read_tunnels(manager)


async def expose(model_id: str, named: named_tunnel.NamedTunnel | None) -> TunnelStatus:
    """As `open_tunnel`, over a connection of its own."""
    async with await Manager.connect() as manager:
        return await open_tunnel(manager, model_id, named)


async def gateway_address(model_id: str, *, is_named: bool) -> str:
    """Where a model's tunnel is to lead: HOST:PORT of the gateway's socket, which may not be what mmd.toml says by now.

    Raises ManagerUnreachable, and WrongUsage where the socket has none, or the tunnel has lost its name.
    """
    async with await Manager.connect() as manager:
        if not is_named and await _is_enabled(manager, tunnel_unit(model_id)):
            message = f"the tunnel to {model_id} had a name of its own, and {tunnel_file(model_id)} is gone"
            raise WrongUsage(message, hint=f"mmd expose --off {model_id}   # then expose it anew")
        addresses = [address for address in await manager.addresses(MAIN_SOCKET) if not address.startswith("/")]
    if not addresses:
        raise WrongUsage(f"{MAIN_SOCKET} listens nowhere", hint=f"systemctl --user status {MAIN_SOCKET}")
    return addresses[0]


async def unexpose(model_id: str | None) -> tuple[str, ...]:
    """Close a model's tunnel, or all of them. Returns whose."""
    async with await Manager.connect() as manager:
        closing = [one.id for one in await read_tunnels(manager) if model_id in (None, one.id)]
        await close_tunnels(manager, closing)
        return tuple(closing)


async def read_tunnels(manager: Manager) -> tuple[TunnelStatus, ...]:
    """Those that are open or are to be, by the model's id."""
    units = {tunnel_of(unit.name): unit.active_state for unit in await manager.units((TUNNELS,))}
    urls, lasting = exposed_urls(), named_tunnel.model_ids()
    found = {model_id for model_id, active in units.items() if _state(active) is not TunnelState.CLOSED} | lasting
    return tuple(
        TunnelStatus(model_id, _state(units.get(model_id, "")), urls.get(model_id), model_id in lasting)
        for model_id in sorted(found)
    )


async def open_tunnel(manager: Manager, model_id: str, named: named_tunnel.NamedTunnel | None = None) -> TunnelStatus:
    """Have a model be reached from everywhere; returns when it can be. With `named`, by that name from now on, after a
    start of the machine too; else by the name it has already, or by one that Cloudflare thinks of.

    Raises NoSuchModel, ProgramMissing, WrongUsage where mmd's units are not installed, and MmdError where cloudflared
    does not connect: then the name that it had before is kept.
    """
    Registry().get(model_id)
    cloudflared.program()
    return await (_opened(manager, model_id) if named is None else _opened_as(manager, model_id, named))


async def _opened_as(manager: Manager, model_id: str, named: named_tunnel.NamedTunnel) -> TunnelStatus:
    """By another name than before, which is kept only where it is opened."""
    unit = tunnel_unit(model_id)
    before = named_tunnel.NamedTunnel.load(model_id)
    was_open = any(one.active_state == "active" for one in await manager.units([unit]))
    named.save(model_id)
    try:
        await manager.run_job(unit, manager.stop(unit))
        return await _opened(manager, model_id)
    except BaseException:
        if before is None:
            named_tunnel.delete(model_id)
        else:
            before.save(model_id)
            if was_open:
                await manager.start(unit)
        raise


async def _opened(manager: Manager, model_id: str) -> TunnelStatus:
    """Returns when it is; where it will not be, its unit is stopped."""
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
        await manager.run_job(unit, manager.stop(unit))  # it would try again for ever
        raise await _failure(model_id, began_us)
    is_lasting = model_id in named_tunnel.model_ids()
    if is_lasting:
        await manager.enable([unit])
    return TunnelStatus(model_id, TunnelState.OPEN, url, is_lasting)


async def close_tunnels(manager: Manager, model_ids: Iterable[str]) -> None:
    """Have models be reached from here only. A tunnel's token is forgotten with it."""
    for model_id in model_ids:
        unit = tunnel_unit(model_id)
        await manager.run_job(unit, manager.stop(unit))
        await manager.reset_failed(unit)
        # Before its token goes: without one it would be opened at a start of the machine by whatever name.
        if await _is_enabled(manager, unit):
            await manager.disable([unit])
        named_tunnel.delete(model_id)


async def _is_enabled(manager: Manager, unit: str) -> bool:
    return (await manager.unit_file_state(unit)).startswith("enabled")


async def _give_up(unit: str) -> None:
    """After Ctrl-C, or without the bus: a tunnel that nobody was told of is not to open a moment later."""
    with suppress(MmdError):  # what went wrong before is raised
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
    """With the last that cloudflared, or mmd before it, complained of."""
    identifier = f"mmd-tunnel-{model_id}"
    said = await last_words(identifier, since_us=began_us, count=_SAID_LINES)
    reason = next((line for line in reversed(said) if _is_complaint(line)), "it ended")
    # Without the time, which the journal has as well, and whose words they are.
    reason = (reason.partition(" ERR ")[2] or reason).removeprefix("mmd: ")
    return MmdError(f"no tunnel to {model_id} could be opened: {reason}", hint=f"journalctl -t {identifier} -n 30")


def _is_complaint(line: str) -> bool:
    """An error while it runs has its level, one that ends it has none; that our config file is empty is none."""
    is_talk = any(level in line for level in (" INF ", " WRN ", " DBG "))
    is_hint = line.startswith(("See ", "  → "))
    return not is_talk and not is_hint and "/dev/null" not in line

"""Install mmd's static units for a user, and remove them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmd.errors import CannotListen, MmdError, UnitsMasked
from mmd.units import user_files
from mmd.units.bus import JobResult, Manager
from mmd.units.names import TUNNELS
from mmd.units.unit_files import BOOT, ENABLED, GATEWAY, MAIN_SOCKET, NEEDED, SOCKETS, UNITS

_STOPPED = (*SOCKETS, GATEWAY, BOOT)  # not the slice: models run in it


@dataclass(frozen=True, slots=True)
class InstallReport:
    """What `install` did."""

    files: tuple[Path, ...]  # in the user's folder: drop-ins, and whole units if no package has them
    listening: tuple[str, ...]  # the addresses
    refused: tuple[str, ...]  # sockets, other than the main one, that could not listen
    masked: tuple[str, ...]  # units that the user has masked; they are skipped
    removed: tuple[Path, ...]  # files of an older installation
    set_aside: tuple[Path, ...]  # units not written by mmd, renamed to NAME.bak


async def install(manager: Manager, addresses: Mapping[str, str]) -> InstallReport:
    """Start the gateway's sockets, and enable them and the boot service.

    `addresses` maps MAIN_SOCKET and, if wanted, EMBEDDING_SOCKET to HOST:PORT. If a package has the units, only
    drop-ins are written into the user's unit folder. Whole units there would hide the package's: those of an older
    installation are deleted, others are renamed to NAME.bak. A running gateway is restarted. Raises MmdError if the
    main socket cannot listen or is masked; the former installation is restored then.
    """
    await manager.reload()  # a package may have been installed or removed without a reload
    masked = await masked_by_others(manager)
    _refuse_if_masked(masked)
    files = user_files.wanted(addresses, masked, are_packaged=await packaged_in(manager) is not None)
    units = [name for name in UNITS if name not in masked and user_files.is_wanted(name, addresses)]
    before = await _Installation.read(manager)
    try:
        set_aside = await _apply(manager, files, [name for name in ENABLED if name in units], masked)
        await _stop(manager, (*SOCKETS, GATEWAY))
        refused = [name for name in SOCKETS if name in units and not await _listens(manager, name)]
        if MAIN_SOCKET in refused:
            raise _cannot_listen(addresses[MAIN_SOCKET])
        await before.restart_dependents(manager)
    except MmdError:
        await before.put_back(manager, masked)
        raise
    listening = tuple(address for name, address in addresses.items() if name in units and name not in refused)
    removed = tuple(file for file in before.contents if file not in files and file not in set_aside)
    return InstallReport(tuple(files), listening, tuple(refused), masked, removed, set_aside)


async def remove(manager: Manager) -> bool:
    """Undo `install`, and return whether there was anything to undo.

    Units of a package, and those not written by mmd, are kept but disabled. Models keep running, and stay
    registered.
    """
    await manager.reload()
    before = await _Installation.read(manager)
    await _stop(manager, _STOPPED)
    kept = user_files.foreign_files(before.contents)
    await _apply(manager, kept, ())
    return before != _Installation(kept, (), (), gateway_runs=False)


async def packaged_in(manager: Manager) -> Path | None:
    """Return the folder in which a package has installed the units."""
    return user_files.packaged_in((await manager.manager_properties())["UnitPath"])


async def masked_by_others(manager: Manager) -> tuple[str, ...]:
    """Return the units that the user has masked; not those that mmd masks because of mmd.toml."""
    states = {name: await manager.unit_file_state(name) for name in UNITS}
    masked = (name for name, state in states.items() if state.startswith("masked"))
    return tuple(name for name in masked if not user_files.is_masked_by_us(name))


async def enabled(manager: Manager) -> tuple[str, ...]:
    """Return the units that start at a login or a boot."""
    states = {name: await manager.unit_file_state(name) for name in ENABLED}
    return tuple(name for name, state in states.items() if state.startswith("enabled"))


@dataclass(frozen=True, slots=True)
class _Installation:
    """The files and states of the static units at one moment."""

    contents: Mapping[Path, bytes]
    enabled: tuple[str, ...]
    listening: tuple[str, ...]
    gateway_runs: bool
    tunnels: tuple[str, ...] = ()  # active or activating; they stop with the main socket

    @classmethod
    async def read(cls, manager: Manager) -> _Installation:
        active = {unit.name for unit in await manager.units((*SOCKETS, GATEWAY)) if unit.active_state == "active"}
        listening = tuple(name for name in SOCKETS if name in active)
        tunnels = await manager.units([TUNNELS])
        restarted = tuple(unit.name for unit in tunnels if unit.active_state in ("active", "activating"))
        return cls(user_files.present(), await enabled(manager), listening, GATEWAY in active, restarted)

    async def put_back(self, manager: Manager, masked: Collection[str]) -> None:
        await _apply(manager, self.contents, self.enabled, masked)
        await _stop(manager, (*SOCKETS, GATEWAY))
        for name in self.listening:
            await _listens(manager, name)
        await self.restart_dependents(manager)

    async def restart_dependents(self, manager: Manager) -> None:
        """Start the units that stopped with the sockets. Do not wait until they run."""
        for name in (*([GATEWAY] if self.gateway_runs else []), *self.tunnels):
            await manager.start(name)


async def _apply(
    manager: Manager, files: Mapping[Path, bytes], enabled: Collection[str], masked: Collection[str] = ()
) -> tuple[Path, ...]:
    """Make these the user's unit files, and enable these units. `masked` units stay as they are.

    Returns the files that were renamed to NAME.bak.
    """
    set_aside = user_files.put(files)
    # DisableUnitFiles refuses a unit without a file, and EnableUnitFiles keeps a dangling link if another file has the
    # name.
    user_files.unlink(link for link in user_files.links() if link.name not in masked)
    await manager.reload()
    await manager.enable(enabled)
    await manager.reload()
    return set_aside


async def _stop(manager: Manager, names: Iterable[str]) -> None:
    for unit in names:
        await manager.run_job(unit, manager.stop(unit))


async def _listens(manager: Manager, socket: str) -> bool:
    await manager.reset_failed(socket)
    return await manager.run_job(socket, manager.start(socket)) is JobResult.DONE


def _refuse_if_masked(masked: Iterable[str]) -> None:
    if needed := [name for name in masked if name in NEEDED]:
        units = " ".join(needed)
        raise UnitsMasked(
            f"masked, so they cannot run: {units}", hint=f"systemctl --user unmask {units} && mmd install"
        )


def _cannot_listen(listen: str) -> CannotListen:
    return CannotListen(
        f"the gateway cannot listen on {listen}: it is in use, or reserved for root (ports below 1024)",
        hint=f"ss -ltnp 'sport = :{listen.rpartition(':')[2]}'   # which program; or set [gateway] listen in mmd.toml",
    )

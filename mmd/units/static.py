"""mmd's own units in a user's manager: how they get in, and out again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmd.errors import CannotListen, MmdError, UnitsMasked
from mmd.units import user_files
from mmd.units.bus import JobResult, Manager
from mmd.units.names import TUNNELS
from mmd.units.unit_files import BOOT, ENABLED, GATEWAY, MAIN_SOCKET, NEEDED, SOCKETS, UNITS

_STOPPED = (*SOCKETS, GATEWAY, BOOT)  # not the slice: the models are in it


@dataclass(frozen=True, slots=True)
class InstallReport:
    files: tuple[Path, ...]  # that are the user's: drop-ins, and whole units where no package brings them
    listening: tuple[str, ...]  # the addresses
    refused: tuple[str, ...]  # sockets, other than the main one, that could not listen
    masked: tuple[str, ...]  # units that somebody does not want to run, and that are left out
    removed: tuple[Path, ...]  # files of an older installation
    set_aside: tuple[Path, ...]  # units that somebody else has written: they are called NAME.bak now


async def install(manager: Manager, addresses: Mapping[str, str]) -> InstallReport:
    """Have the gateway's sockets listen now and after a login, and the models of a boot loaded then. `addresses` are
    those of MAIN_SOCKET and, if it is wanted, EMBEDDING_SOCKET. Where a package brings the units, only drop-ins are
    written into the user's own unit folder, and whole units there, which would hide the package's, go: those of an
    older installation for good, others to NAME.bak.

    Over an older installation a gateway that runs ends, and a new one is started. Raises MmdError where the main socket
    cannot listen or is masked, and has everything as it was before.
    """
    await manager.reload()  # of a package that came or went only the files tell
    masked = await masked_by_others(manager)
    _refuse_if_masked(masked)
    files = user_files.wanted(addresses, masked, are_packaged=await packaged_in(manager) is not None)
    units = [name for name in UNITS if name not in masked and user_files.is_wanted(name, addresses)]
    before = await _Installation.read(manager)
    try:
        set_aside = await _have(manager, files, [name for name in ENABLED if name in units], masked)
        await _stop(manager, (*SOCKETS, GATEWAY))
        refused = [name for name in SOCKETS if name in units and not await _listens(manager, name)]
        if MAIN_SOCKET in refused:
            raise _cannot_listen(addresses[MAIN_SOCKET])
        await before.go_on(manager)
    except MmdError:
        await before.put_back(manager, masked)
        raise
    listening = tuple(address for name, address in addresses.items() if name in units and name not in refused)
    removed = tuple(file for file in before.contents if file not in files and file not in set_aside)
    return InstallReport(tuple(files), listening, tuple(refused), masked, removed, set_aside)


async def remove(manager: Manager) -> bool:
    """Undo `install`; what a package brings or somebody else has written stays, disabled. Models go on running, and
    stay registered. Returns whether there was anything to undo.
    """
    await manager.reload()
    before = await _Installation.read(manager)
    await _stop(manager, _STOPPED)
    kept = user_files.strangers(before.contents)
    await _have(manager, kept, ())
    return before != _Installation(kept, (), (), gateway_runs=False)


async def packaged_in(manager: Manager) -> Path | None:
    """The folder that a package has put the units into."""
    return user_files.packaged_in((await manager.itself())["UnitPath"])


async def masked_by_others(manager: Manager) -> tuple[str, ...]:
    """Units that are not to run, and not for what mmd.toml says."""
    states = {name: await manager.unit_file_state(name) for name in UNITS}
    masked = (name for name, state in states.items() if state.startswith("masked"))
    return tuple(name for name in masked if not user_files.is_masked_by_us(name))


async def enabled(manager: Manager) -> tuple[str, ...]:
    """Units that are started at a login or a start of the machine."""
    states = {name: await manager.unit_file_state(name) for name in ENABLED}
    return tuple(name for name, state in states.items() if state.startswith("enabled"))


@dataclass(frozen=True, slots=True)
class _Installation:
    """An installation as it is, or none."""

    contents: Mapping[Path, bytes]
    enabled: tuple[str, ...]
    listening: tuple[str, ...]
    gateway_runs: bool
    tunnels: tuple[str, ...] = ()  # those that are open or are to be: they end with the main socket

    @classmethod
    async def read(cls, manager: Manager) -> _Installation:
        active = {unit.name for unit in await manager.units((*SOCKETS, GATEWAY)) if unit.active_state == "active"}
        listening = tuple(name for name in SOCKETS if name in active)
        tunnels = await manager.units([TUNNELS])
        to_be = tuple(unit.name for unit in tunnels if unit.active_state in ("active", "activating"))
        return cls(user_files.present(), await enabled(manager), listening, GATEWAY in active, to_be)

    async def put_back(self, manager: Manager, masked: Collection[str]) -> None:
        await _have(manager, self.contents, self.enabled, masked)
        await _stop(manager, (*SOCKETS, GATEWAY))
        for name in self.listening:
            await _listens(manager, name)
        await self.go_on(manager)

    async def go_on(self, manager: Manager) -> None:
        """Start again what has ended with the sockets, once they listen. Not waited for."""
        for name in (*([GATEWAY] if self.gateway_runs else []), *self.tunnels):
            await manager.start(name)


async def _have(
    manager: Manager, files: Mapping[Path, bytes], enabled: Collection[str], masked: Collection[str] = ()
) -> tuple[Path, ...]:
    """Have these files of the user's there, and these units enabled, and no others of either, but for masked units.
    Returns files that are set aside.
    """
    set_aside = user_files.put(files)
    # Not by DisableUnitFiles: that refuses a unit without a file, and EnableUnitFiles leaves a link to a file that is
    # gone as it is where another file has the name.
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
        raise UnitsMasked(f"masked, and so not to run: {units}", hint=f"systemctl --user unmask {units} && mmd install")


def _cannot_listen(listen: str) -> CannotListen:
    return CannotListen(
        f"the gateway cannot listen on {listen}: somebody else does, or it is not yours (below 1024 it is root's)",
        hint=f"ss -ltnp 'sport = :{listen.rpartition(':')[2]}'   # who; or set [gateway] listen in mmd.toml",
    )

"""mmd's own units in a user's manager: how they get in, and out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmd.errors import MmdError, StorageFailed
from mmd.paths import user_unit_dir
from mmd.units.bus import JobResult, Manager
from mmd.units.unit_files import (
    BOOT,
    DROP_IN,
    EMBEDDING_SOCKET,
    ENABLED,
    GATEWAY,
    MAIN_SOCKET,
    SOCKETS,
    UNITS,
    drop_in_text,
    mmd_command,
    unit_text,
)

_STOPPED = (*SOCKETS, GATEWAY, BOOT)  # not the slice: the models are in it


@dataclass(frozen=True, slots=True)
class Installed:
    files: tuple[Path, ...]
    listening: tuple[str, ...]  # the addresses
    refused: tuple[str, ...]  # sockets, other than the main one, that could not listen


async def install(manager: Manager, addresses: Mapping[str, str]) -> Installed:
    """Write the units into the user's own unit folder, have the gateway's sockets listen now and after a login, and the
    models of a boot loaded then. `addresses` are those of MAIN_SOCKET and, if it is wanted, EMBEDDING_SOCKET.

    Over an older installation the gateway is told to end; the next connection starts the new one. Raises MmdError where
    the main socket cannot listen, and has everything as it was before.
    """
    before = await _Before.read(manager)
    unwanted = {EMBEDDING_SOCKET} - addresses.keys()
    wanted = [name for name in UNITS if name not in unwanted]
    contents = {file: text.encode() for name in wanted for file, text in _texts(name, addresses).items()}
    await _take_out(manager, unwanted)
    _remove_files(_own_files(UNITS) - contents.keys())
    _write(contents)
    await manager.reload()
    await manager.enable([name for name in ENABLED if name in wanted])
    await manager.reload()
    await _stop(manager, (*SOCKETS, GATEWAY))
    refused = [name for name in SOCKETS if name in wanted and not await _listens(manager, name)]
    if MAIN_SOCKET in refused:
        await before.put_back(manager)
        listen = addresses[MAIN_SOCKET]
        raise MmdError(
            f"the gateway cannot listen on {listen}: somebody else does, or it is not yours (below 1024 it is root's)",
            hint=f"ss -ltnp 'sport = :{listen.rpartition(':')[2]}'   # who; or set [gateway] listen in mmd.toml",
        )
    listening = tuple(address for name, address in addresses.items() if name not in refused)
    return Installed(tuple(contents), listening, tuple(refused))


async def remove(manager: Manager) -> tuple[Path, ...]:
    """Undo `install`. Models go on running, and stay registered."""
    gone = tuple(sorted(_own_files(UNITS)))
    await _take_out(manager, set(UNITS))
    return gone


@dataclass(frozen=True, slots=True)
class _Before:
    """An older installation, or none."""

    contents: Mapping[Path, bytes]
    listening: tuple[str, ...]

    @classmethod
    async def read(cls, manager: Manager) -> _Before:
        contents = {file: file.read_bytes() for file in _own_files(UNITS)}
        units = {unit.name: unit.active_state for unit in await manager.units(SOCKETS)}
        return cls(contents, tuple(name for name in SOCKETS if units.get(name) == "active"))

    async def put_back(self, manager: Manager) -> None:
        known = {file.name for file in self.contents}
        await _take_out(manager, set(UNITS) - known)
        _remove_files(_own_files(UNITS) - self.contents.keys())
        _write(self.contents)
        await manager.enable([name for name in ENABLED if name in known])
        await manager.reload()
        await _stop(manager, (*SOCKETS, GATEWAY))
        for name in self.listening:
            await _listens(manager, name)


async def _take_out(manager: Manager, names: set[str]) -> None:
    """Have units stopped, disabled and gone, if they are there."""
    there = [name for name in UNITS if name in names and _own_files([name])]
    if not there:
        return
    await _stop(manager, [name for name in _STOPPED if name in there])
    # The links too of one whose file somebody has removed by hand.
    await manager.disable([name for name in ENABLED if name in names])
    _remove_files(_own_files(there))
    await manager.reload()


async def _stop(manager: Manager, names: Iterable[str]) -> None:
    for unit in names:
        await manager.run_job(unit, manager.stop(unit))


async def _listens(manager: Manager, socket: str) -> bool:
    await manager.reset_failed(socket)
    return await manager.run_job(socket, manager.start(socket)) is JobResult.DONE


def _texts(name: str, addresses: Mapping[str, str]) -> dict[Path, str]:
    """A unit's file, and its drop-in where it has one."""
    drop_in = drop_in_text(name, addresses)
    return {_file(name): unit_text(name, mmd_command())} | ({} if drop_in is None else {_drop_in(name): drop_in})


def _write(contents: Mapping[Path, bytes]) -> None:
    folder = user_unit_dir()
    try:
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written: {error.strerror}", hint=f"ls -ld {folder}; df -h {folder}"
        ) from error


def _remove_files(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink()
        if file.name == DROP_IN and not any(file.parent.iterdir()):
            file.parent.rmdir()


def _own_files(names: Iterable[str]) -> set[Path]:
    """What `install` has written for these units, here or in an older version."""
    return {file for name in names for file in (_file(name), _drop_in(name)) if file.exists()}


def _file(name: str) -> Path:
    return user_unit_dir() / name


def _drop_in(name: str) -> Path:
    return user_unit_dir() / f"{name}.d" / DROP_IN

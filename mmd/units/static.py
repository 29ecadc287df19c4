"""The units that are files: where they come from, and how they get into a user's manager and out again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmd.errors import MmdError, StorageFailed
from mmd.paths import user_unit_dir
from mmd.units.bus import JobResult, Manager
from mmd.units.spec import command_line, quoted

MAIN_SOCKET = "mmd.socket"
EMBEDDING_SOCKET = "mmd-embedding.socket"
_LOCAL_SOCKET = "mmd-local.socket"

# The main one last: a connection to another, which starts the gateway, pulls it in, and the gateway that runs already
# would be a reason for systemd to refuse the others.
_SOCKETS = (EMBEDDING_SOCKET, _LOCAL_SOCKET, MAIN_SOCKET)
UNITS = ("mmd.slice", "mmd.service", *_SOCKETS, "mmd-boot.service")
_ENABLED = (*_SOCKETS, "mmd-boot.service")
_STOPPED = (*_SOCKETS, "mmd.service", "mmd-boot.service")  # not the slice: the models are in it

# In the files: the command that starts mmd, the address of a socket, and where the gateway looks for engines.
_COMMAND = "@MMD@"
_LISTEN = "@LISTEN@"
_PATH = "@PATH@"


@dataclass(frozen=True, slots=True)
class Installed:
    files: tuple[Path, ...]
    listening: tuple[str, ...]  # the addresses
    refused: tuple[str, ...]  # sockets, other than the main one, that could not listen


def mmd_command() -> str:
    """mmd by the interpreter that runs it now: right in a checkout, a virtual environment and a package alike."""
    return command_line((sys.executable, "-P", "-m", "mmd"))


def unit_text(name: str, addresses: Mapping[str, str]) -> str:
    """One of `UNITS` as it is installed; a socket is to be at its address, HOST:PORT."""
    template = (_source_dir() / name).read_text("utf-8")
    path = quoted(f"PATH={os.environ.get('PATH', os.defpath)}")
    return template.replace(_COMMAND, mmd_command()).replace(_LISTEN, addresses.get(name, "")).replace(_PATH, path)


async def install(manager: Manager, addresses: Mapping[str, str]) -> Installed:
    """Write the units into the user's own unit folder, have the gateway's sockets listen now and after a login, and the
    models of a boot loaded then. `addresses` are those of MAIN_SOCKET and, if it is wanted, EMBEDDING_SOCKET.

    Over an older installation the gateway is told to end; the next connection starts the new one. Raises MmdError where
    the main socket cannot listen, and has everything as it was before.
    """
    before = await _Before.read(manager)
    unwanted = {EMBEDDING_SOCKET} - addresses.keys()
    wanted = [name for name in UNITS if name not in unwanted]
    await _take_out(manager, unwanted)
    _write({_file(name): unit_text(name, addresses).encode() for name in wanted})
    await manager.reload()
    await manager.enable([name for name in _ENABLED if name in wanted])
    await manager.reload()
    await _stop(manager, (*_SOCKETS, "mmd.service"))
    refused = [name for name in _SOCKETS if name in wanted and not await _listens(manager, name)]
    if MAIN_SOCKET in refused:
        await before.put_back(manager)
        listen = addresses[MAIN_SOCKET]
        raise MmdError(
            f"the gateway cannot listen on {listen}: somebody else does, or it is not yours (below 1024 it is root's)",
            hint=f"ss -ltnp 'sport = :{listen.rpartition(':')[2]}'   # who; or set [gateway] listen in mmd.toml",
        )
    listening = tuple(address for name, address in addresses.items() if name not in refused)
    return Installed(tuple(_file(name) for name in wanted), listening, tuple(refused))


async def remove(manager: Manager) -> tuple[Path, ...]:
    """Undo `install`. Models go on running, and stay registered."""
    gone = tuple(file for name in UNITS if (file := _file(name)).exists())
    await _take_out(manager, set(UNITS))
    return gone


@dataclass(frozen=True, slots=True)
class _Before:
    """An older installation, or none."""

    contents: Mapping[Path, bytes]
    listening: tuple[str, ...]

    @classmethod
    async def read(cls, manager: Manager) -> _Before:
        contents = {file: file.read_bytes() for name in UNITS if (file := _file(name)).exists()}
        units = {unit.name: unit.active_state for unit in await manager.units(_SOCKETS)}
        return cls(contents, tuple(name for name in _SOCKETS if units.get(name) == "active"))

    async def put_back(self, manager: Manager) -> None:
        known = {file.name for file in self.contents}
        await _take_out(manager, set(UNITS) - known)
        _write(self.contents)
        await manager.enable([name for name in _ENABLED if name in known])
        await manager.reload()
        await _stop(manager, (*_SOCKETS, "mmd.service"))
        for name in self.listening:
            await _listens(manager, name)


async def _take_out(manager: Manager, names: set[str]) -> None:
    """Have units stopped, disabled and gone, if they are there."""
    there = [name for name in UNITS if name in names and _file(name).exists()]
    if not there:
        return
    await _stop(manager, [name for name in _STOPPED if name in there])
    # The links too of one whose file somebody has removed by hand.
    await manager.disable([name for name in _ENABLED if name in names])
    for name in there:
        _file(name).unlink()
    await manager.reload()


async def _stop(manager: Manager, names: Iterable[str]) -> None:
    for unit in names:
        await manager.run_job(unit, manager.stop(unit))


async def _listens(manager: Manager, socket: str) -> bool:
    await manager.reset_failed(socket)
    return await manager.run_job(socket, manager.start(socket)) is JobResult.DONE


def _write(contents: Mapping[Path, bytes]) -> None:
    folder = user_unit_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            file.write_bytes(content)
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written: {error.strerror}", hint=f"ls -ld {folder}; df -h {folder}"
        ) from error


def _file(name: str) -> Path:
    return user_unit_dir() / name


def _source_dir() -> Path:
    """`units/` of the checkout that runs, or the installed data files beside the interpreter."""
    beside = Path(__file__).resolve().parents[2] / "units"
    return beside if (beside / UNITS[0]).is_file() else Path(sys.prefix) / "share/mmd/units"

"""How mmd's units stand in the user manager: whose they are, and what about them `mmd install` would mend."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmd import __version__
from mmd.control.install.addresses import Addresses, gateway_addresses
from mmd.control.install.presence import running_version
from mmd.settings import read_settings
from mmd.units import static, user_files
from mmd.units.bus import Manager
from mmd.units.unit_files import (
    EMBEDDING_SOCKET,
    ENABLED,
    GATEWAY,
    MAIN_SOCKET,
    NEEDED,
    SOCKETS,
    UNITS,
    is_template,
    without_path,
)


class InstallKind(StrEnum):
    NONE = "none"
    PACKAGED = "packaged"  # the unit files are a package's; the user has drop-ins
    COPIED = "copied"  # `mmd install` has written them into the user's own unit folder


@dataclass(frozen=True, slots=True)
class InstallState:
    kind: InstallKind
    program: str  # that the gateway's unit starts; "" where there is none
    is_this: bool  # that program is the mmd that runs now
    outdated: tuple[Path, ...]  # of the user's files, those that `mmd install` would write otherwise, make or remove
    other_path: tuple[Path, ...]  # drop-ins that only have another PATH than this shell: other engines may be found
    shadowing: tuple[Path, ...]  # whole units of the user's that hide a package's
    dangling: tuple[Path, ...]  # links of enabled units whose files are gone
    unread: tuple[str, ...]  # units whose files have changed since the manager read them
    disabled: tuple[str, ...]  # units that a login or a start of the machine would not start
    masked: tuple[str, ...]  # units that somebody has said are not to run
    silent: tuple[str, ...]  # sockets that do not listen
    gateway_version: str | None  # of the gateway that runs

    @property
    def is_current(self) -> bool:
        """Whether `mmd install` has nothing to do, and nothing to refuse."""
        files = (self.outdated, self.other_path, self.shadowing, self.dangling)
        units = (self.unread, self.disabled, self.silent, [name for name in self.masked if name in NEEDED])
        return self.kind is not InstallKind.NONE and not any((*files, *units)) and not self.has_old_gateway

    @property
    def has_old_gateway(self) -> bool:
        """Whether the gateway that runs was started before an upgrade."""
        return self.is_this and self.gateway_version not in (None, __version__)


async def read_install_state() -> InstallState:
    """Raises ManagerUnreachable, and WrongUsage where mmd.toml is damaged."""
    addresses = addresses_by_socket(gateway_addresses(read_settings()))
    async with await Manager.connect() as manager:
        return await _read(manager, addresses)


def addresses_by_socket(addresses: Addresses) -> Mapping[str, str]:
    embedding = {EMBEDDING_SOCKET: addresses.embedding} if addresses.embedding else {}
    return {MAIN_SOCKET: addresses.main} | embedding


async def _read(manager: Manager, addresses: Mapping[str, str]) -> InstallState:
    present = user_files.present()
    package = await static.packaged_in(manager)
    masked = await static.masked_by_others(manager)
    kind = _kind(present, package)
    there = () if kind is InstallKind.NONE else tuple(name for name in UNITS if user_files.is_wanted(name, addresses))
    expected = user_files.wanted(addresses, masked, are_packaged=package is not None) if there else {}
    units = {name: await manager.unit(name) for name in there if name not in masked and not is_template(name)}
    enabled = await static.enabled(manager)
    program = await _program(manager)
    differing = {file for file in present.keys() | expected.keys() if present.get(file) != expected.get(file)}
    other_path = {file for file in differing if _without_path(present, file) == _without_path(expected, file)}
    hiding = (file for file in present.keys() - expected.keys() if package and (package / file.name).exists())
    return InstallState(
        kind=kind,
        program=program,
        is_this=is_this_mmd(program),
        outdated=tuple(sorted(differing - other_path)),
        other_path=tuple(sorted(other_path)),
        shadowing=tuple(sorted(hiding)),
        dangling=tuple(link for link in user_files.links() if link.name not in masked and not link.exists()),
        unread=tuple(name for name, unit in units.items() if unit["NeedDaemonReload"]),
        disabled=tuple(name for name in units if name in ENABLED and name not in enabled),
        masked=masked,
        silent=tuple(name for name, unit in units.items() if name in SOCKETS and unit["ActiveState"] != "active"),
        gateway_version=running_version(),
    )


def _kind(present: Mapping[Path, bytes], package: Path | None) -> InstallKind:
    if user_files.unit_file(GATEWAY) in present:
        return InstallKind.COPIED
    return InstallKind.NONE if package is None else InstallKind.PACKAGED


def _without_path(contents: Mapping[Path, bytes], file: Path) -> bytes | None:
    return without_path(contents[file]) if file in contents else None


async def _program(manager: Manager) -> str:
    commands = await manager.commands(GATEWAY, "ExecStart")
    return commands[0][0] if commands else ""


def is_this_mmd(program: str) -> bool:
    """Whether a program is the Python that runs mmd now, or the script of mmd's beside that."""
    here = Path(sys.executable)
    return bool(program) and (program == str(here) or Path(program).resolve().parent == here.parent.resolve())

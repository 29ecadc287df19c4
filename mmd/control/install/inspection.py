"""Read the state of mmd's units in the user manager, and what `mmd install` would change about them."""

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
    """Where the unit files come from."""

    NONE = "none"
    PACKAGED = "packaged"  # the unit files come from a package; the user has drop-ins
    COPIED = "copied"  # `mmd install` wrote them into the user's own unit folder


@dataclass(frozen=True, slots=True)
class InstallState:
    """mmd's units as systemd and the user's unit folder have them."""

    kind: InstallKind
    program: str  # the program the gateway's unit starts; "" without a unit
    is_this: bool  # `program` is this mmd
    outdated: tuple[Path, ...]  # files of the user that `mmd install` would change, create or remove
    other_path: tuple[Path, ...]  # drop-ins that differ only in PATH: units may find other engines
    shadowing: tuple[Path, ...]  # units of the user that override a unit of the package
    dangling: tuple[Path, ...]  # links of enabled units without a unit file
    unread: tuple[str, ...]  # units whose file changed since the manager read it
    disabled: tuple[str, ...]  # units that a login or boot would not start
    masked: tuple[str, ...]  # units the user has masked
    silent: tuple[str, ...]  # sockets that are not active
    gateway_version: str | None  # of the running gateway

    @property
    def is_current(self) -> bool:
        """True if `mmd install` has nothing to change and nothing to refuse."""
        files = (self.outdated, self.other_path, self.shadowing, self.dangling)
        units = (self.unread, self.disabled, self.silent, [name for name in self.masked if name in NEEDED])
        return self.kind is not InstallKind.NONE and not any((*files, *units)) and not self.has_old_gateway

    @property
    def has_old_gateway(self) -> bool:
        """True if the running gateway was started before an upgrade of mmd."""
        return self.is_this and self.gateway_version not in (None, __version__)


async def read_install_state() -> InstallState:
    """Read the state. Raises ManagerUnreachable, and WrongUsage if mmd.toml is damaged."""
    addresses = addresses_by_socket(gateway_addresses(read_settings()))
    async with await Manager.connect() as manager:
        return await _read(manager, addresses)


def addresses_by_socket(addresses: Addresses) -> Mapping[str, str]:
    """Map each socket unit to its TCP address; without a unit that mmd.toml turns off."""
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
    """True if `program` is the Python that runs this mmd, or the mmd script beside it."""
    here = Path(sys.executable)
    return bool(program) and (program == str(here) or Path(program).resolve().parent == here.parent.resolve())

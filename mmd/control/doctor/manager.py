"""The user manager: whether it answers, and if not, exactly why."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.control.doctor.restart_loops import RestartLoop, read_restart_loops
from mmd.control.install.users import user_name
from mmd.control.state.host import Host
from mmd.control.state.status import Failed, Sleeping, read_failed, read_sleeping
from mmd.errors import ManagerUnreachable
from mmd.paths import user_runtime_dir
from mmd.plan.residency import Residency, residency
from mmd.units.bus import Manager, Unit
from mmd.units.names import split
from mmd.units.unit_files import GATEWAY
from mmd.units.watch import pairs_of

_OLDEST_TRIED = 252
_OURS = ("mmd.*", "mmd-*")


@dataclass(frozen=True, slots=True)
class ManagerState:
    """What the user manager says of itself and of mmd's units."""

    version: str  # as distributions write it: "252.39-1~deb12u2"
    control_group: str
    units: tuple[Unit, ...]
    listening: tuple[str, ...] = ()  # addresses of mmd's sockets that are up
    sleeping: tuple[Sleeping, ...] = ()
    failed: tuple[Failed, ...] = ()  # models
    restarting: tuple[RestartLoop, ...] = ()
    is_named: bool = True  # XDG_RUNTIME_DIR is set, by which systemctl finds it too
    asked_by: str = ""  # who became its user by sudo

    @property
    def has_gateway(self) -> bool:
        return any(unit.name == GATEWAY and unit.active_state == "active" for unit in self.units)

    @property
    def running(self) -> tuple[str, ...]:
        """The models whose engines are up."""
        names = (split(unit.name) for unit in self.units if unit.active_state == "active")
        return tuple(name[1] for name in names if name and name[0] == "model")


@dataclass(frozen=True, slots=True)
class LoginEnvironment:
    """What tells why there is no user manager to be found."""

    user: str
    uid: int
    is_booted: bool  # with systemd
    init: str  # the name of process 1
    runtime: str
    runtime_owner: str | None  # None where there is no such folder
    has_private_socket: bool  # systemd's own: a user manager runs
    has_bus: bool
    bus_address: str  # DBUS_SESSION_BUS_ADDRESS, "" where it is not set
    sudo_user: str  # who called sudo, "" where nobody did

    @property
    def is_borrowed(self) -> bool:
        """The runtime folder is somebody else's."""
        return self.runtime_owner not in (None, self.user)


def read_manager() -> ManagerState:
    """Raises ManagerUnreachable, with the reason: also where it is somebody else's, which root is let into."""
    here = read_login_environment()
    if here.is_borrowed:
        raise borrowed_runtime_error(here)
    try:
        return asyncio.run(_read(here))
    except ManagerUnreachable as error:
        raise explain_unreachable(here, error) from error


async def _read(here: LoginEnvironment) -> ManagerState:
    async with Host() as host, await Manager.connect() as manager:
        itself = await manager.itself()
        units = await manager.units(_OURS)
        sockets = [unit.name for unit in units if unit.name.endswith(".socket") and unit.active_state == "active"]
        where = {model_id: residency(pair) for model_id, pair in sorted(pairs_of(units).items())}
        return ManagerState(
            version=str(itself["Version"]),
            control_group=str(itself["ControlGroup"]),
            units=units,
            listening=tuple([address for name in sockets for address in await manager.addresses(name)]),
            sleeping=tuple(
                [await read_sleeping(manager, host, name) for name, here in where.items() if here is Residency.ASLEEP]
            ),
            failed=tuple(
                [await read_failed(manager, name) for name, here in where.items() if here is Residency.FAILED]
            ),
            restarting=await read_restart_loops(manager, units),
            is_named="XDG_RUNTIME_DIR" in os.environ,
            asked_by=here.sudo_user if here.sudo_user != here.user else "",
        )


def read_login_environment() -> LoginEnvironment:
    runtime = user_runtime_dir()
    try:
        owner = user_name(runtime.stat().st_uid)
    except FileNotFoundError:
        owner = None
    except PermissionError:  # it is within a folder of somebody else's
        owner = "somebody else"
    return LoginEnvironment(
        user=user_name(os.getuid()),
        uid=os.getuid(),
        is_booted=Path("/run/systemd/system").is_dir(),
        init=_init(),
        runtime=str(runtime),
        runtime_owner=owner,
        has_private_socket=_is_there(runtime / "systemd/private"),
        has_bus=_is_there(runtime / "bus"),
        bus_address=os.environ.get("DBUS_SESSION_BUS_ADDRESS", ""),
        sudo_user=os.environ.get("SUDO_USER", ""),
    )


def _init() -> str:
    try:
        return Path("/proc/1/comm").read_text("utf-8", "replace").strip()
    except OSError:  # of others' processes nothing is to be readings: hidepid
        return "another program"


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  False, and not an error, where one may not look


def borrowed_runtime_error(here: LoginEnvironment) -> ManagerUnreachable:
    return ManagerUnreachable(
        f"XDG_RUNTIME_DIR is {here.runtime}, which is {here.runtime_owner}'s: this shell became {here.user} by su",
        hint=f"sudo machinectl shell {here.user}@   # a login of its own; or: ssh {here.user}@localhost",
    )


def explain_unreachable(here: LoginEnvironment, error: ManagerUnreachable) -> ManagerUnreachable:
    """The error, with what is missing, and how it is had."""
    own_bus, sudo = f"unix:path={here.runtime}/bus", "sudo " if here.uid else ""
    if here.bus_address and here.bus_address != own_bus and here.has_bus:
        return ManagerUnreachable(
            f"DBUS_SESSION_BUS_ADDRESS names another bus, {here.bus_address}, where no systemd is",
            hint="unset DBUS_SESSION_BUS_ADDRESS",
        )
    if not here.is_booted:
        return ManagerUnreachable(
            f"systemd does not run this machine, {here.init} does (a container?), so nobody has a user manager",
            hint="ps -p 1   # it must be systemd: use the host, or a machine or container that boots",
        )
    if here.sudo_user and here.sudo_user != here.user and here.runtime_owner is None:
        return ManagerUnreachable(
            f"{here.user} has no user manager: sudo does not log in", hint=f"mmd doctor   # as {here.sudo_user}"
        )
    if here.runtime_owner is None:
        return ManagerUnreachable(
            f"there is no {here.runtime}: {here.user} is not logged in (su does not do that) and does not linger",
            hint=f"{sudo}loginctl enable-linger {here.user} && export XDG_RUNTIME_DIR=/run/user/{here.uid}",
        )
    if here.has_private_socket and not here.has_bus:
        return ManagerUnreachable(
            "a user manager runs, but without a session bus, which dbus-user-session brings",
            hint="sudo apt install dbus-user-session && systemctl --user start dbus.socket",
        )
    if not here.has_private_socket:
        return ManagerUnreachable(
            f"the user manager does not run: there is no {here.runtime}/systemd/private",
            hint=f"sudo systemctl restart user@{here.uid}.service   # and why: systemctl status user@{here.uid}",
        )
    return error


def check_manager(manager: ManagerState) -> Iterator[Diagnosis]:
    number = re.match(r"\d+", manager.version)
    if number and int(number[0]) < _OLDEST_TRIED:
        yield warning(
            f"systemd {manager.version} answers; mmd was never tried with one before {_OLDEST_TRIED}",
            "systemctl --version   # a newer distribution has a newer one",
        )
    elif manager.asked_by:
        yield warning(
            f"systemd {manager.version} answers; what follows is about root, not about {manager.asked_by}: sudo",
            "mmd doctor   # without sudo",
        )
    elif not manager.is_named:
        yield warning(
            f"systemd {manager.version} answers; systemctl --user does not find it, for XDG_RUNTIME_DIR is not set",
            f"export XDG_RUNTIME_DIR={user_runtime_dir()}",
        )
    else:
        yield ok(f"systemd {manager.version} answers")

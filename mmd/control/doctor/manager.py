"""Check whether the systemd user manager answers, and explain why not."""

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
from mmd.control.state.machine_reader import MachineReader
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
    """What the user manager reports about itself and about mmd's units."""

    version: str  # as distributions write it: "252.39-1~deb12u2"
    control_group: str
    units: tuple[Unit, ...]
    listening: tuple[str, ...] = ()  # addresses of mmd's active sockets
    sleeping: tuple[Sleeping, ...] = ()
    failed: tuple[Failed, ...] = ()  # models
    restarting: tuple[RestartLoop, ...] = ()
    is_named: bool = True  # XDG_RUNTIME_DIR is set; systemctl needs it
    asked_by: str = ""  # the user that called sudo

    @property
    def has_gateway(self) -> bool:
        return any(unit.name == GATEWAY and unit.active_state == "active" for unit in self.units)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the models whose engine is active."""
        names = (split(unit.name) for unit in self.units if unit.active_state == "active")
        return tuple(name[1] for name in names if name and name[0] == "model")


@dataclass(frozen=True, slots=True)
class LoginEnvironment:
    """Facts that explain why no user manager answers."""

    user: str
    uid: int
    is_booted: bool  # with systemd
    init: str  # the name of process 1
    runtime: str
    runtime_owner: str | None  # None if the folder does not exist
    has_private_socket: bool  # systemd's private socket: a user manager runs
    has_bus: bool
    bus_address: str  # DBUS_SESSION_BUS_ADDRESS, "" if unset
    sudo_user: str  # the user that called sudo, "" without sudo

    @property
    def is_borrowed(self) -> bool:
        """True if another user owns the runtime folder."""
        return self.runtime_owner not in (None, self.user)


def read_manager() -> ManagerState:
    """Read the manager's state. Raises ManagerUnreachable with the reason, also if the manager belongs to another user
    (root could connect to it, and would work on that user's units with root's models).
    """
    login = read_login_environment()
    if login.is_borrowed:
        raise borrowed_runtime_error(login)
    try:
        return asyncio.run(_read(login))
    except ManagerUnreachable as error:
        raise explain_unreachable(login, error) from error


async def _read(login: LoginEnvironment) -> ManagerState:
    async with MachineReader() as reader, await Manager.connect() as manager:
        properties = await manager.manager_properties()
        units = await manager.units(_OURS)
        sockets = [unit.name for unit in units if unit.name.endswith(".socket") and unit.active_state == "active"]
        residencies = {model_id: residency(pair) for model_id, pair in sorted(pairs_of(units).items())}
        return ManagerState(
            version=str(properties["Version"]),
            control_group=str(properties["ControlGroup"]),
            units=units,
            listening=tuple([address for name in sockets for address in await manager.addresses(name)]),
            sleeping=tuple(
                [
                    await read_sleeping(manager, reader, name)
                    for name, now in residencies.items()
                    if now is Residency.ASLEEP
                ]
            ),
            failed=tuple(
                [await read_failed(manager, name) for name, now in residencies.items() if now is Residency.FAILED]
            ),
            restarting=await read_restart_loops(manager, units),
            is_named="XDG_RUNTIME_DIR" in os.environ,
            asked_by=login.sudo_user if login.sudo_user != login.user else "",
        )


def read_login_environment() -> LoginEnvironment:
    runtime = user_runtime_dir()
    try:
        owner = user_name(runtime.stat().st_uid)
    except FileNotFoundError:
        owner = None
    except PermissionError:  # a parent folder belongs to another user
        owner = "another user"
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
    except OSError:  # /proc is mounted with hidepid
        return "another program"


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  False instead of PermissionError


def borrowed_runtime_error(login: LoginEnvironment) -> ManagerUnreachable:
    """Return the error for a shell that uses another user's runtime folder, as after `su`."""
    return ManagerUnreachable(
        f"XDG_RUNTIME_DIR is {login.runtime}, a folder of {login.runtime_owner}: this shell became {login.user} by su",
        hint=f"sudo machinectl shell {login.user}@   # starts a real login; or: ssh {login.user}@localhost",
    )


def explain_unreachable(login: LoginEnvironment, error: ManagerUnreachable) -> ManagerUnreachable:
    """Return the error with what is missing and the command that provides it."""
    own_bus, sudo = f"unix:path={login.runtime}/bus", "sudo " if login.uid else ""
    if login.bus_address and login.bus_address != own_bus and login.has_bus:
        return ManagerUnreachable(
            f"DBUS_SESSION_BUS_ADDRESS is {login.bus_address}, a bus without systemd",
            hint="unset DBUS_SESSION_BUS_ADDRESS",
        )
    if not login.is_booted:
        return ManagerUnreachable(
            f"process 1 is {login.init}, not systemd (a container?), so there is no user manager",
            hint="ps -p 1   # must be systemd: use the host, or a machine or container that boots systemd",
        )
    if login.sudo_user and login.sudo_user != login.user and login.runtime_owner is None:
        return ManagerUnreachable(
            f"{login.user} has no user manager: sudo does not log in", hint=f"mmd doctor   # as {login.sudo_user}"
        )
    if login.runtime_owner is None:
        return ManagerUnreachable(
            f"{login.runtime} does not exist: {login.user} is not logged in (su is not a login) and has no lingering",
            hint=f"{sudo}loginctl enable-linger {login.user} && export XDG_RUNTIME_DIR=/run/user/{login.uid}",
        )
    if login.has_private_socket and not login.has_bus:
        return ManagerUnreachable(
            "the user manager runs, but without a session bus (package dbus-user-session)",
            hint="sudo apt install dbus-user-session && systemctl --user start dbus.socket",
        )
    if not login.has_private_socket:
        return ManagerUnreachable(
            f"the user manager does not run: {login.runtime}/systemd/private does not exist",
            hint=f"sudo systemctl restart user@{login.uid}.service   # reason: systemctl status user@{login.uid}",
        )
    return error


def check_manager(manager: ManagerState) -> Iterator[Diagnosis]:
    number = re.match(r"\d+", manager.version)
    if number and int(number[0]) < _OLDEST_TRIED:
        yield warning(
            f"systemd {manager.version} answers; mmd is tested with {_OLDEST_TRIED} and newer only",
            "systemctl --version   # a newer release of the distribution has a newer one",
        )
    elif manager.asked_by:
        yield warning(
            f"systemd {manager.version} answers; because of sudo, all results are about root, not {manager.asked_by}",
            "mmd doctor   # without sudo",
        )
    elif not manager.is_named:
        yield warning(
            f"systemd {manager.version} answers; XDG_RUNTIME_DIR is not set, so systemctl --user does not find it",
            f"export XDG_RUNTIME_DIR={user_runtime_dir()}",
        )
    else:
        yield ok(f"systemd {manager.version} answers")

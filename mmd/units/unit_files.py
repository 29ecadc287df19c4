"""The static units: their names and their texts.

A unit file is the same for all users, except for the command that starts mmd. What differs between users, the addresses
of the gateway and the PATH, is in drop-ins. So packages can contain the files, and `mmd install` writes the same
drop-ins with and without a package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mmd.units.directives import command_line, quoted

MAIN_SOCKET = "mmd.socket"
EMBEDDING_SOCKET = "mmd-embedding.socket"
LOCAL_SOCKET = "mmd-local.socket"
GATEWAY = "mmd.service"
BOOT = "mmd-boot.service"
TUNNEL = "mmd-tunnel@.service"

# The main socket is last: systemd refuses to start a socket whose service runs already. A connection to another socket
# starts the gateway, and the gateway starts the main socket.
SOCKETS = (EMBEDDING_SOCKET, LOCAL_SOCKET, MAIN_SOCKET)
UNITS = ("mmd.slice", GATEWAY, *SOCKETS, BOOT, TUNNEL)
ENABLED = (*SOCKETS, BOOT)
NEEDED = (MAIN_SOCKET, GATEWAY)  # the gateway cannot run without them

DROP_IN = "50-mmd.conf"
PACKAGED_COMMAND = "/usr/bin/mmd"

_COMMAND = "@MMD@"
_PATH = b"\nEnvironment="
_LOOK_FOR_PROGRAMS = (GATEWAY, BOOT, TUNNEL)


def is_template(name: str) -> bool:
    """True if the unit is a template, with an instance for each model."""
    return "@." in name


def mmd_command() -> str:
    """Return the command that starts mmd by the running interpreter, in a checkout or a virtual environment."""
    return command_line((sys.executable, "-P", "-m", "mmd"))


def unit_text(name: str, command: str) -> str:
    """Return the text of one of `UNITS`; `command` starts mmd, quoted as in unit files."""
    return (_source_dir() / name).read_text("utf-8").replace(_COMMAND, command)


def drop_in_text(name: str, addresses: Mapping[str, str]) -> str | None:
    """Return the drop-in of a unit for this user; None if it needs none. `addresses` maps sockets to HOST:PORT."""
    if name in _LOOK_FOR_PROGRAMS:
        path = quoted(f"PATH={os.environ.get('PATH', os.defpath)}")
        return (
            "# Written by `mmd install`: the PATH of the shell, so that the same programs are found as there.\n"
            f"[Service]\nEnvironment={path}\n"
        )
    address = addresses.get(name)
    if address is None or f"ListenStream={address}\n" in unit_text(name, _COMMAND):
        return None
    # The empty value resets what the unit file has.
    return f"# Written by `mmd install`, from [gateway] in mmd.toml.\n[Socket]\nListenStream=\nListenStream={address}\n"


def without_path(drop_in: bytes) -> bytes:
    """Return a drop-in without the PATH of the shell in which it was written."""
    return drop_in.partition(_PATH)[0]


def write_for_package(folder: Path) -> None:
    """Write the units for a package, as in /usr/lib/systemd/user."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in UNITS:
        (folder / name).write_text(unit_text(name, PACKAGED_COMMAND), "utf-8")


def _source_dir() -> Path:
    """Return `units/` of a checkout, or the folder that the wheel installed below its prefix.

    The prefix is that of a virtual environment, ~/.local or /usr/local; sys.prefix does not cover the last two.
    """
    packages = Path(__file__).resolve().parents[2]
    beside = packages / "units"
    return beside if (beside / UNITS[0]).is_file() else packages.parents[2] / "share/mmd/units"

"""The units that are files: which there are, and what is in them.

A unit file is the same for everybody but for the command that starts mmd. What differs for one user, where the gateway
listens and where engines are looked for, is in drop-ins. So a package may carry the files, and `mmd install` writes the
same drop-ins whether it does or not.
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

# The main one last: a connection to another, which starts the gateway, pulls it in, and the gateway that runs already
# would be a reason for systemd to refuse the others.
SOCKETS = (EMBEDDING_SOCKET, LOCAL_SOCKET, MAIN_SOCKET)
UNITS = ("mmd.slice", GATEWAY, *SOCKETS, BOOT, TUNNEL)
ENABLED = (*SOCKETS, BOOT)
NEEDED = (MAIN_SOCKET, GATEWAY)  # without which there is no gateway

DROP_IN = "50-mmd.conf"
PACKAGED_COMMAND = "/usr/bin/mmd"

_COMMAND = "@MMD@"
_PATH = b"\nEnvironment="
_LOOK_FOR_PROGRAMS = (GATEWAY, BOOT, TUNNEL)


def is_template(name: str) -> bool:
    """Whether a unit exists for each model that it is started for, and not by itself."""
    return "@." in name


def mmd_command() -> str:
    """mmd by the interpreter that runs it now: right in a checkout and in a virtual environment alike."""
    return command_line((sys.executable, "-P", "-m", "mmd"))


def unit_text(name: str, command: str) -> str:
    """One of `UNITS` as a file; `command` starts mmd, and is written as unit files have it."""
    return (_source_dir() / name).read_text("utf-8").replace(_COMMAND, command)


def drop_in_text(name: str, addresses: Mapping[str, str]) -> str | None:
    """What a unit is given for this user; None where that is nothing. A socket is to be at its address, HOST:PORT."""
    if name in _LOOK_FOR_PROGRAMS:
        path = quoted(f"PATH={os.environ.get('PATH', os.defpath)}")
        return (
            "# Written by `mmd install`: PATH as it was in the shell, so that the same programs are found as there.\n"
            f"[Service]\nEnvironment={path}\n"
        )
    address = addresses.get(name)
    if address is None or f"ListenStream={address}\n" in unit_text(name, _COMMAND):
        return None
    # The empty line takes away what the unit file says.
    return f"# Written by `mmd install`, from [gateway] in mmd.toml.\n[Socket]\nListenStream=\nListenStream={address}\n"


def without_path(drop_in: bytes) -> bytes:
    """A drop-in but for the PATH of the shell that it was written in."""
    return drop_in.partition(_PATH)[0]


def write_for_package(folder: Path) -> None:
    """Write the units as a package carries them, for a folder like /usr/lib/systemd/user."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in UNITS:
        (folder / name).write_text(unit_text(name, PACKAGED_COMMAND), "utf-8")


def _source_dir() -> Path:
    """`units/` of the checkout that runs, or what the wheel has put below the prefix it was installed to: that of a
    virtual environment, ~/.local or /usr/local; sys.prefix is none of the last two.
    """
    packages = Path(__file__).resolve().parents[2]
    beside = packages / "units"
    return beside if (beside / UNITS[0]).is_file() else packages.parents[2] / "share/mmd/units"

"""Lingering: whether logind keeps the user manager running without a login."""

from __future__ import annotations

import os
from pathlib import Path

from mmd.control.install.users import known_name

_LINGERING = Path("/var/lib/systemd/linger")
_LOGIND = Path("/run/systemd/seats")  # exists while logind runs, see sd-login(3)
# D-Bus starts polkit on demand, so being installed is enough.
_POLKIT = Path("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service")


def lingers() -> bool:
    """True if this user's manager starts at boot and stays after the last logout."""
    user = known_name(os.getuid())
    return user is not None and (_LINGERING / user).exists()


def linger_command() -> str | None:
    """Return the command that enables lingering; None if logind does not run or the user has no name."""
    user = known_name(os.getuid())
    if user is None or not _LOGIND.exists():
        return None
    # polkit lets users enable it for themselves.
    sudo = "" if os.getuid() == 0 or _POLKIT.exists() else "sudo "
    return f"{sudo}loginctl enable-linger {user}"

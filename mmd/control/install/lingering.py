"""Whether the user manager is there without a login: lingering, as logind calls it."""

from __future__ import annotations

import os
from pathlib import Path

from mmd.control.install.users import known_name

_LINGERING = Path("/var/lib/systemd/linger")
_LOGIND = Path("/run/systemd/seats")  # by which sd-login(3) tells that it runs
# Who is to ask it starts it: that it is installed is enough.
_POLKIT = Path("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service")


def lingers() -> bool:
    """Whether this user's manager is started with the machine, and stays after the last logout."""
    user = known_name(os.getuid())
    return user is not None and (_LINGERING / user).exists()


def linger_command() -> str | None:
    """What makes it linger; None where that is not for logind to do: it does not run, or the user has no name."""
    user = known_name(os.getuid())
    if user is None or not _LOGIND.exists():
        return None
    # A user may have it for themselves, if polkit is there to say so.
    sudo = "" if os.getuid() == 0 or _POLKIT.exists() else "sudo "
    return f"{sudo}loginctl enable-linger {user}"

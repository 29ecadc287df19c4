"""Names of users."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """The number itself, where nobody has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

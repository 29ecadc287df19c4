"""Names of users."""

from __future__ import annotations

import pwd


def known_name(uid: int) -> str | None:
    """None where nobody has the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """The number itself, where nobody has it."""
    return known_name(uid) or str(uid)

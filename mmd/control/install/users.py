"""User names by uid."""

from __future__ import annotations

import pwd


def known_name(uid: int) -> str | None:
    """Return the user's name, or None for an unknown uid."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """Return the user's name, or the uid as text if it has none."""
    return known_name(uid) or str(uid)

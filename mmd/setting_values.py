"""Checks of values in mmd.toml, as TOML has them."""

from __future__ import annotations

import re
from typing import Any

from mmd.quantities import GIB, read_size

_SETUP_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"  # as a model's id: both are written in the same places
_DEVICE = re.compile(r"\d{1,2}|GPU-[0-9A-Fa-f-]{8,36}|ram")
_HOST = r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+"
_ORIGIN = r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?"


def is_listen(value: Any) -> bool:
    """Return True for HOST:PORT."""
    if not isinstance(value, str):
        return False
    host, colon, port = value.rpartition(":")
    return bool(host and colon and port.isdecimal() and int(port) < 65536)


def is_listen_or_off(value: Any) -> bool:
    return value == "" or is_listen(value)


def is_hosts(value: Any) -> bool:
    """Return True for a list of names and addresses as in a URL, without the port."""
    return isinstance(value, list) and all(isinstance(name, str) and re.fullmatch(_HOST, name) for name in value)


def is_origins(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and re.fullmatch(_ORIGIN, one) for one in value)


def is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_context(value: Any) -> bool:
    return is_number(value) and value > 0


def is_absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def is_aliases(value: Any) -> bool:
    """Return True for a list of names. A name may end up on a command line, so it must not start with a hyphen."""
    return isinstance(value, list) and all(
        isinstance(name, str) and name.isprintable() and name == name.strip() and name[:1] not in ("", "-")
        for name in value
    )


def is_members(value: Any) -> bool:
    """Return True for a list of at least one model, and of none twice."""
    return is_aliases(value) and bool(value) and len(set(value)) == len(value)


def is_games(value: Any) -> bool:
    return value in ("yield", "ignore")


def is_suspend(value: Any) -> bool:
    return value in ("release", "leave")


def is_residency(value: Any) -> bool:
    return value in ("many", "one")


def is_safe_maximum(value: Any) -> bool:
    """Return True for a size, or a table of sizes by the index of a GPU, the start of its UUID, or "ram"."""
    if isinstance(value, dict):
        return bool(value) and all(_DEVICE.fullmatch(key) and _is_large_size(size) for key, size in value.items())
    return _is_large_size(value)


def _is_large_size(value: Any) -> bool:
    size_bytes = read_size(value) if isinstance(value, str) else None
    return size_bytes is not None and size_bytes >= GIB


def is_startup(value: Any) -> bool:
    return value in ("disabled", "sleep", "active")


def is_setup_startup(value: Any) -> bool:
    return value in ("disabled", "active")


def is_setup_name(name: str) -> bool:
    """Return True for a name that a setup may have."""
    return re.fullmatch(_SETUP_NAME, name) is not None

"""How deep models sleep: what their release hooks say of it, and what they are told."""

from __future__ import annotations

import json
from contextlib import suppress

from mmd.paths import engine_socket


def asleep_level(model_id: str) -> int:
    """The level that a sleeping model was put to sleep at, as its release hook left it beside the socket."""
    try:
        return int(json.loads((engine_socket(model_id).parent / "asleep").read_text("utf-8"))["level"])
    except FileNotFoundError:
        return 1  # it has just been woken


def write_level(model_id: str, level: int) -> None:
    """Have the next release of a model put it to sleep at this level."""
    with suppress(FileNotFoundError):  # its engine has just ended, and the folder has gone with it
        (engine_socket(model_id).parent / "level").write_text(str(level), "utf-8")

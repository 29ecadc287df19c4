"""How deep models sleep: what their release hooks say of it, and what they are told."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from mmd.paths import engine_socket


def asleep_level(model_id: str) -> int:
    """The level that a sleeping model was put to sleep at, as its release hook left it beside the socket."""
    return int(_record(model_id).get("level", 1))


def asleep_since(model_id: str) -> float | None:
    """When a sleeping model was put to sleep, on the monotonic clock; None where it has just been woken. That clock
    stands still while the machine is suspended: nobody could have used a model then.
    """
    since = _record(model_id).get("since")
    return None if since is None else float(since)


def _record(model_id: str) -> dict[str, Any]:
    """Nothing in it where the model has just been woken."""
    try:
        record: dict[str, Any] = json.loads((engine_socket(model_id).parent / "asleep").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return record


def write_level(model_id: str, level: int) -> None:
    """Have the next release of a model put it to sleep at this level."""
    with suppress(FileNotFoundError):  # its engine has just ended, and the folder has gone with it
        (engine_socket(model_id).parent / "level").write_text(str(level), "utf-8")

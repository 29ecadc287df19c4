"""The level at which each model sleeps, as its release hook records it, and the level for its next sleep."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mmd.codec import BadRecord, decode
from mmd.paths import engine_socket


@dataclass(frozen=True, slots=True)
class _SleepRecord:
    """What the release hook writes beside the socket; see `Record` in hooks/release.py."""

    level: int = 1
    since: float | None = None


def asleep_level(model_id: str) -> int:
    """Return the level that a sleeping model was put to sleep at."""
    return _record(model_id).level


def asleep_since(model_id: str) -> float | None:
    """Return when a sleeping model was put to sleep, on the monotonic clock; None if it has just been woken.

    That clock stops while the machine is suspended, when no request could use a model.
    """
    return _record(model_id).since


def _record(model_id: str) -> _SleepRecord:
    """Return the defaults if the model has just been woken, or if the file is damaged."""
    try:
        return decode((engine_socket(model_id).parent / "asleep").read_bytes(), _SleepRecord)
    except (FileNotFoundError, BadRecord):
        return _SleepRecord()


def write_level(model_id: str, level: int) -> None:
    """Have the next release of a model put it to sleep at this level."""
    with suppress(FileNotFoundError):  # its engine has just ended, and the folder with it
        (engine_socket(model_id).parent / "level").write_text(str(level), "utf-8")

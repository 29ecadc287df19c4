"""Suspended models: unloaded before the machine suspends, and not restored yet.

They are in a file in the runtime folder: if the gateway is killed meanwhile, its successor restores them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.paths import runtime_dir

_log = logging.getLogger(__name__)


def suspended_models() -> tuple[str, ...]:
    """Return the ids, the last unloaded first."""
    try:
        return tuple(_file().read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()


def note_suspended(model_ids: Iterable[str]) -> None:
    """Add models to those that are still suspended because the machine was awake for too short a time."""
    _write((*model_ids, *suspended_models()))


def forget_suspended(model_ids: Iterable[str]) -> None:
    """Take models off the record: they are restored, or cannot be."""
    gone = set(model_ids)
    _write(model_id for model_id in suspended_models() if model_id not in gone)


def _write(model_ids: Iterable[str]) -> None:
    """Replace the record. If it cannot be written, the log says so: the models must be unloaded even so."""
    if not (content := "\n".join(dict.fromkeys(model_ids)).encode()):
        _file().unlink(missing_ok=True)
        return
    try:
        write_atomically(_file(), content, durable=False)
    except OSError as error:
        _log.warning("the models to restore cannot be written to %s: %s", _file(), error.strerror)


def _file() -> Path:
    return runtime_dir() / ".away"  # a model's id never begins with a dot

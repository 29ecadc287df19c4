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
    try:
        write_atomically(_file(), "\n".join(dict.fromkeys((*model_ids, *suspended_models()))).encode(), durable=False)
    except OSError as error:  # the models must be unloaded even so
        _log.warning("the models to restore cannot be written to %s: %s", _file(), error.strerror)


def clear_suspended() -> None:
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return runtime_dir() / ".away"  # a model's id never begins with a dot

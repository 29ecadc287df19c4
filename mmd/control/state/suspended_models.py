"""Who is away: put off the GPU for as long as the machine sleeps, and not brought back yet.

A file in the runtime folder: a gateway that is killed meanwhile has a successor, which brings them back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.paths import runtime_dir

_log = logging.getLogger(__name__)


def suspended_models() -> tuple[str, ...]:
    """The last that was put away first."""
    try:
        return tuple(_file().read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()


def note_suspended(model_ids: Iterable[str]) -> None:
    """Who is away still, because the machine was not awake for long, stays so."""
    try:
        write_atomically(_file(), "\n".join(dict.fromkeys((*model_ids, *suspended_models()))).encode(), durable=False)
    except OSError as error:  # the GPU must be cleared all the same
        _log.warning("who is to come back cannot be noted in %s: %s", _file(), error.strerror)


def clear_suspended() -> None:
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return runtime_dir() / ".away"  # no model's id begins with a dot

"""The models that were asked for, the newest first: by `mmd activate`, on the page, or in a request.

A file in the runtime folder lists them. All processes share it, and it outlives the gateway. systemd knows only when a
model was loaded, not which of two resident models was asked for last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.files import ReloadOnChange
from mmd.paths import runtime_dir

_log = logging.getLogger(__name__)

_MAX_MODELS = 16
# Requests may alternate between two models a thousand times a second.
_WRITE_SECONDS = 1.0


def asked_models() -> tuple[str, ...]:
    """Return the ids, the model that was asked for last first."""
    try:
        return tuple(asked_file().read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()


def asked_first(model_ids: Iterable[str]) -> list[str]:
    """Return models in the order in which they were asked for, the last one first; those that were not at the end."""
    order = asked_models()
    return sorted(model_ids, key=lambda model_id: order.index(model_id) if model_id in order else len(order))


def note_asked(model_id: str) -> None:
    """Record that a model is asked for. A file that cannot be written is logged: the model is loaded even so."""
    order = asked_models()
    if order[:1] == (model_id,):
        return
    newest_first = list(dict.fromkeys((model_id, *order)))[:_MAX_MODELS]
    try:
        write_atomically(asked_file(), "\n".join(newest_first).encode(), durable=False)
    except OSError as error:
        _log.warning("the model that was asked for last cannot be written to %s: %s", asked_file(), error.strerror)


class AskedModels:
    """The file for a gateway, which writes it once a second at most and sees what other processes write."""

    def __init__(self, on_write: Callable[[], None]) -> None:
        """`on_write` is called when the gateway has written another model."""
        self._file = ReloadOnChange(asked_file(), asked_models)
        self._on_write = on_write
        self._unwritten: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def order(self) -> tuple[str, ...]:
        """Return the ids, the model that was asked for last first."""
        order = self._file.current()
        return order if self._unwritten is None else (self._unwritten, *order)

    def note(self, model_id: str) -> None:
        """Record that a request or a user asks for a model."""
        if self.order()[:1] != (model_id,):
            self._unwritten = model_id
            if self._timer is None:
                self._write()

    def close(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _write(self) -> None:
        self._timer = None
        if self._flush():
            self._timer = asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._write)
            self._on_write()

    def _flush(self) -> bool:
        model_id, self._unwritten = self._unwritten, None
        if model_id is not None:
            note_asked(model_id)
        return model_id is not None


def asked_file() -> Path:
    return runtime_dir() / ".asked"  # a model's id never begins with a dot

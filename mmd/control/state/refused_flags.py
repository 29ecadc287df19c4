"""The flags that an engine refused for a model, kept so that later starts leave them out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode
from mmd.errors import StorageFailed
from mmd.files import keep_aside
from mmd.paths import data_dir

# Model id -> engine and version, as in a launch's title -> flag -> the line in which the engine refused it.
_Refused = dict[str, dict[str, dict[str, str]]]

_log = logging.getLogger(__name__)


class RefusedFlags:
    """Refusals by model and engine version: a newer engine is tried with the flags again."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or data_dir() / "learned.json"

    def refused(self, model_id: str) -> Mapping[str, Mapping[str, str]]:
        """Return flag -> message of the engine, by engine and version as in a launch's title. Raise StorageFailed."""
        return self._read().get(model_id, {})

    def remember(self, model_id: str, title: str, subjects: Iterable[str], output: str) -> None:
        """Record the output with which the engine refused these flags. Raises StorageFailed."""
        everything = self._read()
        everything.setdefault(model_id, {}).setdefault(title, {}).update(dict.fromkeys(subjects, output))
        self._write(everything)

    def forget(self, model_id: str) -> None:
        """Delete the refused flags of a model. Raises StorageFailed."""
        everything = self._read()
        if everything.pop(model_id, None) is not None:
            self._write(everything)

    def _read(self) -> _Refused:
        try:
            return decode(self.file.read_bytes(), _Refused)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageFailed(f"{self.file} cannot be read: {error.strerror}", hint=f"ls -l {self.file}") from error
        except BadRecord as error:
            _log.warning("%s was damaged (%s) and is kept as %s", self.file, error, keep_aside(self.file).name)
            return {}

    def _write(self, everything: _Refused) -> None:
        try:
            write_atomically(self.file, encode(everything, indent=2))
        except OSError as error:
            raise StorageFailed(
                f"{self.file} cannot be written: {error.strerror}", hint=f"df -h {self.file.parent}"
            ) from error

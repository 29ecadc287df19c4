"""What starts have taught: the settings that an engine refused for a model, so that they are not tried again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmd.atomic import write_atomically
from mmd.errors import StorageFailed
from mmd.files import keep_aside
from mmd.paths import data_dir

_log = logging.getLogger(__name__)


class RefusedFlags:
    """Refusals by model and engine version: a newer engine is asked again."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or data_dir() / "learned.json"

    def refused(self, model_id: str) -> Mapping[str, Mapping[str, str]]:
        """Engine and version, as in a launch's title -> flag -> what the engine said of it. Raises StorageFailed."""
        found: Mapping[str, Mapping[str, str]] = self._read().get(model_id, {})
        return found

    def remember(self, model_id: str, title: str, subjects: Iterable[str], said: str) -> None:
        """Raises StorageFailed."""
        everything = self._read()
        everything.setdefault(model_id, {}).setdefault(title, {}).update(dict.fromkeys(subjects, said))
        self._write(everything)

    def forget(self, model_id: str) -> None:
        """Raises StorageFailed."""
        everything = self._read()
        if everything.pop(model_id, None) is not None:
            self._write(everything)

    def _read(self) -> dict[str, Any]:
        try:
            return _object(json.loads(self.file.read_bytes()))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageFailed(f"{self.file} cannot be read: {error.strerror}", hint=f"ls -l {self.file}") from error
        except ValueError as error:
            _log.warning("%s was damaged (%s) and is kept as %s", self.file, error, keep_aside(self.file).name)
            return {}

    def _write(self, everything: Mapping[str, Any]) -> None:
        try:
            write_atomically(self.file, json.dumps(everything, indent=2, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise StorageFailed(
                f"{self.file} cannot be written: {error.strerror}", hint=f"df -h {self.file.parent}"
            ) from error


def _object(content: object) -> dict[str, Any]:
    """Models → engines → flags → words; raises ValueError where it is anything else."""
    if isinstance(content, dict) and all(
        isinstance(flags, dict)
        for engines in content.values()
        for flags in (engines.values() if isinstance(engines, dict) else [None])
    ):
        return content
    raise ValueError("not what mmd writes")

"""A log of the predicted and the measured memory of starts, used to calibrate and to judge estimates."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from mmd.control.state.json_lines import JsonLines
from mmd.paths import engine_socket, state_dir

# Two files of this size hold some hundred starts each.
_MAX_FILE_BYTES = 128 * 1024
_MAX_SIZE_BYTES = 1 << 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartRecord:
    """One start that succeeded, in bytes. Both mappings have the components of `plan.estimate.Components` by name, and
    their sum as `total_bytes`. `measured` has only the components that were reported, and what `calibration` uses:
    `context_bytes`, `non_torch_bytes` and `graphs_bytes` for each GPU, or without a GPU `process_bytes`.
    """

    at: str  # when it was measured: ISO 8601, UTC
    invocation: str  # systemd's id of this run of the unit
    model: str
    weights: str  # which: see registry.identity
    engine: str  # with its version, as in a launch's title
    command: str  # a hash of its arguments: see `command_hash`
    gpu: str  # its UUID and the driver, "" if it runs on the CPU
    context: int  # tokens
    predicted: Mapping[str, int]
    measured: Mapping[str, int]
    compute_factor: float  # that was known by then, and is in the prediction

    def __post_init__(self) -> None:
        """Refuse what no start can have: each record takes part in every estimate."""
        sizes = (self.context, *self.predicted.values(), *self.measured.values())
        if not all(0 <= size < _MAX_SIZE_BYTES for size in sizes):
            raise ValueError("a size is out of range")
        if datetime.fromisoformat(self.at).tzinfo is None:
            raise ValueError("at has no time zone")

    @property
    def errors(self) -> Mapping[str, float]:
        """Return the relative error of each predicted component that was measured: 0.1 is 10 % too much."""
        return {
            name: round(self.predicted[name] / size_bytes - 1, 4)
            for name, size_bytes in self.measured.items()
            if size_bytes and name in self.predicted
        }

    @property
    def compute_factor_measured(self) -> float | None:
        """Return how much more memory computing took than its formula says, as a factor."""
        measured, predicted = self.measured.get("compute_bytes"), self.predicted.get("compute_bytes")
        return measured * self.compute_factor / predicted if measured and predicted else None


def command_hash(words: Iterable[str]) -> str:
    return sha256("\0".join(words).encode()).hexdigest()[:16]


def starts_file() -> Path:
    return state_dir() / "starts.jsonl"


def append(start: StartRecord) -> None:
    """Append a record. If it cannot be written, log a warning: the next start is measured again."""
    try:
        _lines().append(start)
    except OSError as error:
        _log.warning("cannot record the memory of %s in %s: %s", start.model, starts_file(), error.strerror)


def read_starts() -> list[StartRecord]:
    """Return the records, oldest first, the last one of each run; none if they cannot be read."""
    try:
        starts = _lines().records()
    except OSError as error:
        _log.warning("cannot read %s: %s", starts_file(), error.strerror)
        return []
    return list({start.invocation: start for start in starts}.values())


def is_unmeasured(model_id: str) -> bool:
    """True if the time of its socket says that the engine was started after the last measurement."""
    try:
        started_at = engine_socket(model_id).stat().st_mtime
    except OSError:
        return False
    measured_at = (datetime.fromisoformat(start.at) for start in read_starts() if start.model == model_id)
    return all(at.timestamp() < started_at for at in measured_at)


def _lines() -> JsonLines[StartRecord]:
    return _kept(starts_file())


@lru_cache(maxsize=1)
def _kept(file: Path) -> JsonLines[StartRecord]:
    """Every swap reads the log, to predict the memory of the models that come."""
    return JsonLines(file, StartRecord, _MAX_FILE_BYTES)

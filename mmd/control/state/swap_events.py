"""Swap events: a line of JSON each, for `mmd events`, metrics and the expected duration of the next swap."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmd.control.state.json_lines import JsonLines
from mmd.files import ReloadOnChange
from mmd.paths import state_dir
from mmd.quantities import median

# Two files of this size hold about a thousand swaps.
_MAX_FILE_BYTES = 512 * 1024
_MEDIAN_OF = 5  # the newest durations only, so that the median follows a change of the machine
_NEWEST = 200  # events contain every model that is swapped often, and are read in 2 ms

_log = logging.getLogger(__name__)


# "away": the machine suspends. "leased": `model` is a lease, as lease@NAME.
Outcome = Literal["resident", "failed", "superseded", "away", "leased"]


@dataclass(frozen=True, slots=True)
class SwapEvent:
    """A swap that has ended. `phases` are seconds by name: drain, release, vram_free (a part of release), load or wake,
    and canary (a part of wake). `evicted` are the models that were unloaded for it, `why_evicted` the reasons by model.
    """

    at: str  # when it ended: ISO 8601, UTC
    model: str
    evicted: tuple[str, ...]
    outcome: Outcome
    why: str  # the state that the model was in: "asleep in RAM", "not loaded", …
    cause: str  # why it failed, "" if it did not
    seconds: float
    phases: Mapping[str, float]
    engine_lines: tuple[str, ...] = ()  # the last output of an engine that failed, oldest first
    why_evicted: Mapping[str, str] = field(default_factory=dict)


def events_file() -> Path:
    return state_dir() / "events.jsonl"


def keep(event: SwapEvent) -> None:
    """Append an event. If it cannot be written, the log says so and nothing else: the swap itself is done."""
    try:
        _lines().append(event)
    except OSError as error:
        _log.warning("a swap could not be written to %s: %s", events_file(), error.strerror)


def recent(count: int | None = None) -> list[SwapEvent]:
    """Return the newest events, oldest first; without `count` all of them."""
    return _lines().records(count)


def expected_seconds(phase: str, *, of: int | None = None) -> Mapping[str, float]:
    """Return the expected duration of a phase by model: the median of its newest durations.

    `of`: read only this many of the newest events.
    """
    taken: dict[str, list[float]] = {}
    for event in recent(of):
        if event.outcome == "resident" and phase in event.phases:
            taken.setdefault(event.model, []).append(event.phases[phase])
    return {model: median(seconds[-_MEDIAN_OF:]) for model, seconds in taken.items()}


class SwapDurations:
    """`expected_seconds` of the newest events, computed again when there are others."""

    def __init__(self) -> None:
        self._by_phase: ReloadOnChange[dict[str, Mapping[str, float]]] = ReloadOnChange(events_file(), dict)

    def seconds(self, phase: str, model: str) -> float | None:
        """Return the expected duration of a phase of a model; None if it is not known."""
        by_phase = self._by_phase.current()
        if phase not in by_phase:
            by_phase[phase] = expected_seconds(phase, of=_NEWEST)
        return by_phase[phase].get(model)


def _lines() -> JsonLines[SwapEvent]:
    return JsonLines(events_file(), SwapEvent, _MAX_FILE_BYTES, upgrade=_upgrade)


def _upgrade(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of mmd 0.1, where `evicted` was one model or null, as one of this version."""
    evicted = record.get("evicted")
    return record | {"evicted": [evicted] if isinstance(evicted, str) else evicted or []}

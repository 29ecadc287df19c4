"""Counters of what the gateway does: plain numbers, which the data path increments and the metrics page prints."""

from __future__ import annotations

from asyncio import CancelledError
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import monotonic

from mmd.control.state.swap_events import SwapEvent
from mmd.errors import TryLater

# Histogram buckets, from a cached embedding to a long generation; waits and swaps span the same range.
BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_MAX_PENDING = 128

# The engines' paths. All others are counted as "other": clients must not be able to create labels.
_PATHS = {
    f"/v1/{path}".encode(): f"/v1/{path}"
    for path in (
        *("chat/completions", "completions", "responses", "messages", "messages/count_tokens"),
        *("embeddings", "rerank", "score", "classify", "pooling", "tokenize", "detokenize"),
        *("audio/transcriptions", "audio/translations", "audio/speech"),
        *("images/generations", "images/edits", "realtime"),
    )
}


class AbortReason(StrEnum):
    """Why a response was not completed; the values are labels."""

    CLIENT = "client_left"
    ENGINE = "engine_died"
    SUSPEND = "suspended"
    SWAP = "swapped_out"


class WaitOutcome(StrEnum):
    """How a request's wait for its model ended; the values are labels."""

    SERVED = "served"
    LEFT = "left"
    REFUSED = "refused"  # at once: too many requests wait, or the model has just failed
    FAILED = "failed"


class Histogram:
    """Counts of durations by bucket."""

    __slots__ = ("counts", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)  # the last one is for durations beyond all bounds
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds


class Durations(dict[tuple[str, ...], Histogram]):
    """Histograms by label values."""

    def __missing__(self, labels: tuple[str, ...]) -> Histogram:
        histogram = self[labels] = Histogram()
        return histogram


class Counts(dict[tuple[str, ...], int]):
    """Numbers by label values."""

    def __missing__(self, labels: tuple[str, ...]) -> int:
        return 0


class Counters:
    """All counters of one gateway, which owns them; the comments name their labels."""

    def __init__(self) -> None:
        self.requests = Counts()  # model, path, status
        self.response_seconds = Durations()  # model
        self.first_byte_seconds = Durations()  # model
        self.wait_seconds = Durations()  # model, outcome
        self.swaps = Counts()  # model, outcome
        self.evictions = Counts()  # model, unloaded_for
        self.swap_seconds = Durations()  # model
        self.phase_seconds = Durations()  # model, phase
        self._pending: list[tuple[str, bytes, int, float, float, float]] = []

    def responses(self) -> dict[str, int]:
        """Return how many responses each model's engine has completed."""
        self.flush()
        return {model_id: sum(found.counts) for (model_id,), found in self.response_seconds.items()}

    def count_completed(self, model_id: str, target: bytes, status: int, received: float, first_byte: float) -> None:
        """Count a response that an engine completed. `received` and `first_byte` are on the monotonic clock: when the
        request was complete and when the response's body began.

        Kept for `flush`: counting at once takes 4 µs of each request, counting many in a row less than 1 µs.
        """
        self._pending.append((model_id, target, status, received, first_byte, monotonic()))
        if len(self._pending) >= _MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        """Count the kept responses; called before the numbers are read."""
        pending, self._pending = self._pending, []
        for model_id, target, status, received, first_byte, end in pending:
            self.count(model_id, target.partition(b"?")[0], status)
            self.first_byte_seconds[(model_id,)].observe(first_byte - received)
            self.response_seconds[(model_id,)].observe(end - received)

    def count(self, model_id: str, path: bytes, status: int) -> None:
        """Count a response of the gateway's own, or a WebSocket that begins. `model_id` is "" if no model was found."""
        self.requests[model_id, _PATHS.get(path, "other"), f"{status // 100}xx"] += 1

    def count_aborted(self, model_id: str, path: bytes, why: AbortReason) -> None:
        """Count a response that was not completed."""
        self.requests[model_id, _PATHS.get(path, "other"), why] += 1

    @contextmanager
    def waiting(self, model_id: str) -> Iterator[None]:
        """Measure how long a request waits for its model, and how the wait ends."""
        began, outcome = monotonic(), WaitOutcome.FAILED
        try:
            yield
            outcome = WaitOutcome.SERVED
        except CancelledError:
            outcome = WaitOutcome.LEFT
            raise
        except TryLater:
            outcome = WaitOutcome.REFUSED
            raise
        finally:
            self.wait_seconds[model_id, outcome].observe(monotonic() - began)

    def count_swap(self, event: SwapEvent) -> None:
        """Count a swap that has ended."""
        self.swaps[event.model, event.outcome] += 1
        for unloaded in event.evicted:
            self.evictions[unloaded, event.model] += 1
        self.swap_seconds[(event.model,)].observe(event.seconds)
        for phase, seconds in event.phases.items():
            self.phase_seconds[event.model, phase].observe(seconds)

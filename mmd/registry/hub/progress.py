"""The progress of a download: bytes, files, rate and remaining time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FileProgress:
    """A file that is being fetched."""

    name: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int
    rate_bytes_per_second: float | None = None  # over the last seconds; None until it is known
    remaining_seconds: float | None = None
    files: tuple[FileProgress, ...] = ()
    note: str = ""  # why nothing is being fetched at the moment


OnProgress = Callable[[Progress], None]


class Rate:
    """The rate of a download over a sliding window of ten seconds."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._samples: deque[tuple[float, int]] = deque()

    def after(self, done_bytes: int) -> float | None:
        """Return bytes per second; None at the first call, because earlier bytes were not fetched now."""
        now = self._now()
        self._samples.append((now, done_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW_SECONDS:
            self._samples.popleft()
        began, began_bytes = self._samples[0]
        return max(done_bytes - began_bytes, 0) / (now - began) if now > began else None

"""How far a download is: bytes, files, rate and the time that is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FileProgress:
    """A file that is under way."""

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
    note: str = ""  # why nothing comes just now

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Progress:
        return cls(**said | {"files": tuple(FileProgress(**file) for file in said["files"])})

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"files": [asdict(file) for file in self.files]}


Tell = Callable[[Progress], None]


class Rate:
    """Over a sliding window, from how much there is at moments that are not too far apart."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._moments: deque[tuple[float, int]] = deque()

    def after(self, done_bytes: int) -> float | None:
        """Bytes a second, None for the first moment: what was there before has not been fetched."""
        now = self._now()
        self._moments.append((now, done_bytes))
        while len(self._moments) > 2 and self._moments[1][0] <= now - _WINDOW_SECONDS:
            self._moments.popleft()
        began, began_bytes = self._moments[0]
        return max(done_bytes - began_bytes, 0) / (now - began) if now > began else None

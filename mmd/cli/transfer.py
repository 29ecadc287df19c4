"""The progress of a long read, copy or download: a live line on a terminal, else a line every 30 seconds."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mmd.cli.live_line import LiveLine
from mmd.cli.output import say
from mmd.quantities import clock_text, rate_text, size_text

if TYPE_CHECKING:
    from mmd.registry.hub.progress import Progress

_DELAY_SECONDS = 0.3  # work that ends sooner shows no line
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0  # not on a terminal


class Transfer:
    """Shows progress when called with the bytes done so far. A context manager: it removes the line at the end."""

    def __init__(self, verb: str, total_bytes: int) -> None:
        self._verb = verb  # "verified", "copied"
        self._total_bytes = total_bytes
        self._live = LiveLine()
        self._began = monotonic()
        self._next = self._began + (_DELAY_SECONDS if self._live.is_on_terminal else _LINE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.clear()

    def __call__(self, done_bytes: int) -> None:
        now = monotonic()
        if now < self._next:
            return
        self._next = now + (_REDRAW_SECONDS if self._live.is_on_terminal else _LINE_SECONDS)
        if self._live.is_on_terminal:
            self._live.draw(self._line(done_bytes, now))
        else:
            say(self._line(done_bytes, now))

    def _line(self, done_bytes: int, now: float) -> str:
        rate = done_bytes / (now - self._began)
        percent = 100 * done_bytes // max(self._total_bytes, 1)
        line = f"{self._verb} {size_text(done_bytes)} of {size_text(self._total_bytes)} · {percent} %"
        if not rate:
            return line
        return f"{line} · {rate_text(rate)} · {clock_text((self._total_bytes - done_bytes) / rate)} left"


class Download(Transfer):
    """The progress of a download, with the rate and the remaining time that it reports."""

    def __init__(self, progress: Progress) -> None:
        super().__init__("fetched", progress.total_bytes)
        self._progress = progress

    def show(self, progress: Progress) -> None:
        is_new_note = progress.note != self._progress.note
        self._progress = progress
        if is_new_note and progress.note and not self._live.is_on_terminal:
            say(progress.note)
        self(progress.done_bytes)

    def _line(self, done_bytes: int, now: float) -> str:
        progress = self._progress
        percent = 100 * done_bytes // max(progress.total_bytes, 1)
        line = f"{size_text(done_bytes)} of {size_text(progress.total_bytes)} · {percent} %"
        if progress.files_total > 1:
            line += f" · {progress.files_done} of {progress.files_total} files"
        if progress.note:
            return f"{line} · {progress.note}"
        if progress.rate_bytes_per_second and progress.remaining_seconds is not None:
            line += f" · {rate_text(progress.rate_bytes_per_second)} · {clock_text(progress.remaining_seconds)} left"
        return line

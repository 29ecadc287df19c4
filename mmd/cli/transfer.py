"""How far a long read or copy is: one line that is redrawn on a terminal, a few lines anywhere else."""

from __future__ import annotations

import shutil
import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from mmd.cli.output import say
from mmd.quantities import clock_text, rate_text, size_text

if TYPE_CHECKING:
    from mmd.registry.hub.progress import Progress

_PATIENCE_SECONDS = 0.3  # what is done sooner needs no line
_BETWEEN_DRAWINGS_SECONDS = 0.1
_BETWEEN_LINES_SECONDS = 30.0


class Transfer:
    """Call it with the bytes that are done. Use it as a context manager: the line is gone at the end."""

    def __init__(self, verb: str, total_bytes: int) -> None:
        self._verb = verb  # "verified", "copied"
        self._total_bytes = total_bytes
        self._on_terminal = sys.stderr.isatty()
        self._began = monotonic()
        self._next = self._began + (_PATIENCE_SECONDS if self._on_terminal else _BETWEEN_LINES_SECONDS)
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            click.echo("\r\x1b[K", err=True, nl=False)

    def __call__(self, done_bytes: int) -> None:
        now = monotonic()
        if now < self._next:
            return
        self._next = now + (_BETWEEN_DRAWINGS_SECONDS if self._on_terminal else _BETWEEN_LINES_SECONDS)
        if self._on_terminal:
            self._draw(self._line(done_bytes, now))
        else:
            say(self._line(done_bytes, now))

    def _draw(self, line: str) -> None:
        self._drawn = True
        click.echo(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", err=True, nl=False)

    def _line(self, done_bytes: int, now: float) -> str:
        rate = done_bytes / (now - self._began)
        percent = 100 * done_bytes // max(self._total_bytes, 1)
        line = f"{self._verb} {size_text(done_bytes)} of {size_text(self._total_bytes)} · {percent} %"
        if not rate:
            return line
        return f"{line} · {rate_text(rate)} · {clock_text((self._total_bytes - done_bytes) / rate)} left"


class Download(Transfer):
    """Show it how far a download is, as the hub's library tells it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__("fetched", progress.total_bytes)
        self._progress = progress

    def show(self, progress: Progress) -> None:
        is_news = progress.note != self._progress.note
        self._progress = progress
        if is_news and progress.note and not sys.stderr.isatty():
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

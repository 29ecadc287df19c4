"""Something that is read once, in a thread of its own, however many checks ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, Generic, TypeVar

from mmd.control.doctor.finding import Verdict, failed
from mmd.errors import MmdError

T = TypeVar("T")


class NotRead(Exception):
    """`what` could not be read, and `verdict` says how that went."""

    def __init__(self, what: str, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.what = what
        self.verdict = verdict


class Reading(Generic[T]):
    """Begins at once, and `after` others where it uses what they read. Of those that fail, the first is the cause."""

    def __init__(
        self,
        what: str,
        read: Callable[[], T],
        *,
        look: str,
        limit_seconds: float = 5.0,  # that nothing which works ever takes, on a busy machine neither
        after: tuple[Reading[Any], ...] = (),
    ) -> None:
        """`what` is the subject of a sentence, and `look` the command by which its user sees the same."""
        self.what = what
        self._read = read
        self._look = look
        self._after = after
        self._limit_seconds = limit_seconds
        self._began: float | None = None  # when those it depends on had answered
        self._outcome: Future[T] = Future()
        # No pool: Python would wait at its exit for those of its threads that hang.
        Thread(target=self._run, name=what, daemon=True).start()

    def value(self) -> T:
        """Raises NotRead: its own, or that of the first of those it depends on."""
        for other in self._after:
            other.value()
        try:
            return self._answer()
        except MmdError as error:
            raise NotRead(self.what, failed(error.message, error.hint)) from error
        except OSError as error:
            about = f": {error.filename}" if error.filename else ""
            why = f"{error.strerror or error}{about}"
            raise NotRead(self.what, failed(f"{self.what} cannot be looked at: {why}", self._look)) from error

    def value_or_none(self) -> T | None:
        """For those who can do without."""
        try:
            return self.value()
        except NotRead:
            return None

    def _answer(self) -> T:
        """Raises whatever reading raises; what is neither an MmdError nor an OSError is a fault of mmd's."""
        now = time.monotonic()
        began = now if self._began is None else self._began
        done, _ = wait([self._outcome], timeout=max(0.0, began + self._limit_seconds - now))
        if not done:
            raise MmdError(f"{self.what} did not answer within {self._limit_seconds:g} s", hint=self._look)
        return self._outcome.result()

    def _run(self) -> None:
        try:
            for other in self._after:
                other.value()
            self._began = time.monotonic()
            self._outcome.set_result(self._read())
        except Exception as error:  # noqa: BLE001  it is raised again for whoever asks
            self._outcome.set_exception(error)

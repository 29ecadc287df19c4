"""Read a value once, in a background thread, and share it between checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mmd.control.doctor.diagnosis import Diagnosis, failed
from mmd.errors import MmdError, TimedOut

if TYPE_CHECKING:
    from psutil import Process

T = TypeVar("T")


class ReadFailed(Exception):
    """`what` could not be read; `diagnosis` says why."""

    def __init__(self, what: str, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.what = what
        self.diagnosis = diagnosis


class BackgroundRead(Generic[T]):
    """A read that starts when it is created, or as soon as the reads in `after` have succeeded.

    If several of them fail, the first one in `after` is reported as the cause.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], T],
        *,
        hint: str,
        limit_seconds: float = 5.0,  # longer than any working read takes, even on a busy machine
        after: tuple[BackgroundRead[Any], ...] = (),
    ) -> None:
        """`what` is the subject of an error message; `hint` is the command that shows the user the same thing."""
        self.what = what
        self._read = read
        self._hint = hint
        self._after = after
        self._limit_seconds = limit_seconds
        self._began: float | None = None  # when the reads in `after` had finished
        self._outcome: Future[T] = Future()
        # Not a thread pool: Python waits for a pool's threads at exit, even if they hang.
        Thread(target=self._run, name=what, daemon=True).start()

    def value(self) -> T:
        """Return the value. Raises ReadFailed: its own, or that of the first failed read it depends on."""
        for other in self._after:
            other.value()
        try:
            return self._answer()
        except MmdError as error:
            raise ReadFailed(self.what, failed(error.message, error.hint)) from error
        except OSError as error:
            about = f": {error.filename}" if error.filename else ""
            why = f"{error.strerror or error}{about}"
            raise ReadFailed(self.what, failed(f"{self.what} cannot be read: {why}", self._hint)) from error

    def value_or_none(self) -> T | None:
        """Return the value, or None if it could not be read."""
        try:
            return self.value()
        except ReadFailed:
            return None

    def _answer(self) -> T:
        """Raises whatever the read raised; anything but MmdError and OSError is a bug in mmd."""
        now = time.monotonic()
        began = now if self._began is None else self._began
        done, _ = wait([self._outcome], timeout=max(0.0, began + self._limit_seconds - now))
        if not done:
            raise TimedOut(f"{self.what} did not answer within {self._limit_seconds:g} s", hint=self._hint)
        return self._outcome.result()

    def _run(self) -> None:
        try:
            for other in self._after:
                other.value()
            self._began = time.monotonic()
            self._outcome.set_result(self._read())
        except Exception as error:  # noqa: BLE001  raised again in value()
            self._outcome.set_exception(error)


@contextmanager
def kill_new_children() -> Iterator[None]:
    """Kill, on exit, every child process that was started inside and still runs.

    A program that hangs would otherwise outlive mmd, because the thread that started it still waits for it.
    """
    from psutil import Process

    this = Process()
    before = set(this.children())
    try:
        yield
    finally:
        for program in set(this.children()) - before:
            _kill(program)


def _kill(program: Process) -> None:
    """Kill a process, then its descendants: a parent that lives on could start new ones."""
    from psutil import NoSuchProcess

    with suppress(NoSuchProcess):
        for process in (program, *program.children(recursive=True)):
            with suppress(NoSuchProcess):
                process.kill()

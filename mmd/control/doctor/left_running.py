"""Programs that were asked for something and hang. They would outlive mmd, whose threads wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process


@contextmanager
def nothing_left_running() -> Iterator[None]:
    """What is started within, and still runs at the end, is killed."""
    from psutil import Process

    this = Process()
    before = set(this.children())
    try:
        yield
    finally:
        for program in set(this.children()) - before:
            _kill(program)


def _kill(program: Process) -> None:
    """With all that it has started. What has ended by itself has no children to be found any more."""
    from psutil import NoSuchProcess

    with suppress(NoSuchProcess):
        for child in program.children():
            _kill(child)
    with suppress(NoSuchProcess):
        program.kill()

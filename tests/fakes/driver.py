"""The driver of the fake NVML: it frees the memory of a dead process 3 to 40 ms after its death, as a real one does.

python -I -S tests/fakes/driver.py STATE
"""

# ruff: noqa: PTH100, PTH116, PTH120, PTH123
from __future__ import annotations

import os
import random
import select
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.fakes.vram import rewrite

_LAG_SECONDS = (0.003, 0.04)
_POLL_SECONDS = 0.003


class Driver:
    """Watches the processes that hold memory in the state, each by its pidfd."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen = (0, 0)
        self.poll = select.poll()
        self.watched: dict[int, int] = {}  # pid -> pidfd
        self.due: dict[int, float] = {}  # pid of a dead process -> when its memory is freed
        self.lag = random.Random(os.getpid())

    def run(self) -> None:
        while True:
            self.watch()
            waits = [self.due[pid] - time.monotonic() for pid in self.due]
            ended = self.poll.poll(max(0.0, min([_POLL_SECONDS, *waits])) * 1000)
            for descriptor, _ in ended:
                self.bury(next(pid for pid, watched in self.watched.items() if watched == descriptor))
            now = time.monotonic()
            freed = [pid for pid, at in self.due.items() if at <= now]
            if freed:
                rewrite(lambda lines: _free(lines, freed), self.path)  # noqa: B023 called at once
                for pid in freed:
                    del self.due[pid]

    def watch(self) -> None:
        """Watch the processes that are new in the state; each change of it is a new file."""
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            sys.exit(0)  # the test has ended
        # With its time: after two changes, the file may have the number of the file before again.
        if (state.st_ino, state.st_mtime_ns) == self.seen:
            return
        with open(self.path, encoding="ascii") as file:
            state = os.fstat(file.fileno())
            self.seen = state.st_ino, state.st_mtime_ns
            words = file.read().split()
        for pid in {int(word[1:].partition(":")[0]) for word in words if word[0] == "+"}:
            if pid in self.watched or pid in self.due:
                continue
            try:
                self.watched[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self.bury(pid)
            else:
                self.poll.register(self.watched[pid], select.POLLIN)

    def bury(self, pid: int) -> None:
        self.due[pid] = time.monotonic() + self.lag.uniform(*_LAG_SECONDS)
        if pid in self.watched:
            descriptor = self.watched.pop(pid)
            self.poll.unregister(descriptor)
            os.close(descriptor)


def _free(lines: list[str], pids: list[int]) -> None:
    gone = tuple(f"+{pid}:" for pid in pids)
    for number, line in enumerate(lines):
        if line[:1].isdigit():
            lines[number] = " ".join(word for word in line.split() if not word.startswith(gone))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Driver(sys.argv[1]).run()

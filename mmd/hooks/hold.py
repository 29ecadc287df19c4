"""The holder of a lease: runs for as long as the lease is held.

    hold.py [pipe] [pid=N] [seconds=N]

With `pipe`, it waits until no process has the write end of the pipe on its standard input. Then, with `pid`, it waits
until that process has ended: some programs, such as sudo, close descriptors that they did not open. With neither, it
runs until it is stopped. After `seconds` it exits in any case.
"""

import os
import select
import sys
from time import monotonic

_CHUNK_BYTES = 65536
_STDIN = 0


def main() -> int:
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    end = monotonic() + float(words["seconds"]) if "seconds" in words else None
    if "pipe" in words:
        _wait_for_pipe(end)
    if "pid" in words:
        _wait_for_process(int(words["pid"]), end)
    if not {"pipe", "pid"} & words.keys():
        _wait(select.poll(), end)
    return 0


def _wait_for_pipe(end: "float | None") -> None:
    poller = select.poll()
    poller.register(_STDIN, select.POLLIN)
    # Discard what is written: a full pipe would block a program that writes to the descriptor by mistake.
    while _wait(poller, end) and os.read(_STDIN, _CHUNK_BYTES):
        pass


def _wait_for_process(pid: int, end: "float | None") -> None:
    try:
        process = os.pidfd_open(pid)  # it becomes readable when the process ends, even if no parent reaps it
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(process, select.POLLIN)
    _wait(poller, end)


def _wait(poller: "select.poll", end: "float | None") -> bool:
    """Return True if a descriptor is ready, False at the end."""
    while True:
        # poll() takes 31 bits of milliseconds: 24 days.
        left_ms = None if end is None else min(max(0.0, (end - monotonic()) * 1000), 2.0**31 - 1)
        if poller.poll(left_ms):
            return True
        if end is not None and monotonic() >= end:
            return False


if __name__ == "__main__":
    sys.exit(main())

"""The swaps that come to their end from now on, whichever process makes them."""

from __future__ import annotations

from mmd.control.state.swap_events import SwapEvent, events_file, recent

# More than can end between two looks.
_MOST = 100


class SwapLog:
    """Reads the file of swaps on, where it has changed: else a look costs one stat()."""

    def __init__(self) -> None:
        self._stamp = _stamp()
        self._newest = _newest(recent(1))

    def news(self) -> list[SwapEvent]:
        """Those noted since the last call, oldest first."""
        stamp = _stamp()
        if stamp == self._stamp:
            return []
        self._stamp = stamp
        events = recent(_MOST)
        known = [index for index, event in enumerate(events) if event == self._newest]
        new = events[known[-1] + 1 :] if known else events
        self._newest = _newest(new) or self._newest
        return new


def _newest(events: list[SwapEvent]) -> SwapEvent | None:
    return events[-1] if events else None


def _stamp() -> object:
    try:
        status = events_file().stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns

"""Follow the swap events of all processes: the swaps that end from now on."""

from __future__ import annotations

from mmd.control.state.swap_events import SwapEvent, events_file, recent
from mmd.files import ReloadOnChange

_MAX_EVENTS = 100  # more than can end between two calls of `news`


class SwapLog:
    """The swaps in the event file, which is read again when it changes."""

    def __init__(self) -> None:
        self._file = ReloadOnChange(events_file(), lambda: recent(_MAX_EVENTS))
        self._events = self._file.current()
        self._newest = _newest(self._events)

    def news(self) -> list[SwapEvent]:
        """Return the swaps recorded since the last call, oldest first."""
        events = self._file.current()
        if events is self._events:
            return []
        self._events = events
        known = [index for index, event in enumerate(events) if event == self._newest]
        new = events[known[-1] + 1 :] if known else events
        self._newest = _newest(new) or self._newest
        return new


def _newest(events: list[SwapEvent]) -> SwapEvent | None:
    return events[-1] if events else None

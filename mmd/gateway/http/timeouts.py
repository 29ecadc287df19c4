"""Requests that come in pieces, and those whose rest does not come.

One timer for all of them, and none while there are none: most requests come whole, and cost nothing here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from mmd.gateway.http.limits import Limits

_SWEEP_SECONDS = 1.0


class Sender(Protocol):
    @property
    def awaits_more(self) -> bool: ...

    def time_out(self) -> None: ...


class ReadTimeouts:
    def __init__(self, limits: Limits) -> None:
        self._head_seconds = limits.head_seconds
        self._body_seconds = limits.body_seconds
        self._sweep_seconds = min(_SWEEP_SECONDS, limits.head_seconds, limits.body_seconds)
        self._deadlines: dict[Sender, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect_more(self, sender: Sender, *, of_head: bool) -> None:
        """A head must be complete in time, however it comes; of a body something must come every so often."""
        loop = asyncio.get_running_loop()
        if of_head:
            self._deadlines.setdefault(sender, loop.time() + self._head_seconds)
        else:
            self._deadlines[sender] = loop.time() + self._body_seconds
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_seconds, self._sweep)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._deadlines.clear()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadlines = {sender: until for sender, until in self._deadlines.items() if sender.awaits_more}
        for sender in [sender for sender, until in self._deadlines.items() if until <= loop.time()]:
            del self._deadlines[sender]
            sender.time_out()
        self._timer = loop.call_later(self._sweep_seconds, self._sweep) if self._deadlines else None

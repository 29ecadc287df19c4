"""Time out requests whose rest does not arrive.

One timer serves all connections, and none runs while no request is incomplete: most requests arrive in one piece.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from mmd.gateway.http.limits import Limits

_SWEEP_SECONDS = 1.0


class IncompleteRequest(Protocol):
    """A client connection with a request that has not arrived completely."""

    @property
    def awaits_more(self) -> bool: ...

    def time_out(self) -> None: ...


class ReadTimeouts:
    """The deadlines of all incomplete requests; owned by the gateway."""

    def __init__(self, limits: Limits) -> None:
        self._head_seconds = limits.head_seconds
        self._body_seconds = limits.body_seconds
        self._sweep_seconds = min(_SWEEP_SECONDS, limits.head_seconds, limits.body_seconds)
        self._deadlines: dict[IncompleteRequest, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect_more(self, sender: IncompleteRequest, *, of_head: bool) -> None:
        """Set the deadline. That of a head is fixed at its first byte; that of a body moves with every piece."""
        loop = asyncio.get_running_loop()
        if of_head:
            self._deadlines.setdefault(sender, loop.time() + self._head_seconds)
        else:
            self._deadlines[sender] = loop.time() + self._body_seconds
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_seconds, self._sweep)

    @property
    def is_idle(self) -> bool:
        """True if no timer runs."""
        return self._timer is None

    def deadline(self, sender: IncompleteRequest) -> float | None:
        """Return when a request times out, on the event loop's clock."""
        return self._deadlines.get(sender)

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

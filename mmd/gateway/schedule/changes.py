"""Report to listeners and waiting tasks that a request arrived, was admitted or ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic


class Changes:
    """Calls listeners and wakes waiting tasks at each change. The scheduler owns it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def follow(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def notify(self) -> None:
        self._changed.set()
        for listener in self._listeners:
            listener()

    async def wait(self, until: float) -> None:
        """Return at the next change, or at `until` on the monotonic clock."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - monotonic())):
                await self._changed.wait()

"""The use of VRAM and RAM over the last hour."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mmd.gateway.schedule.models import Models

_HOUR_SECONDS = 3600


class _Sample(NamedTuple):
    at: datetime
    vram_used_bytes: int
    vram_total_bytes: int
    ram_used_bytes: int
    ram_total_bytes: int


class MemoryHistory:
    """Samples of an hour, oldest first; owned by the observer."""

    def __init__(self, models: Models, *, interval_seconds: float) -> None:
        self._models = models
        self._interval_seconds = interval_seconds
        self._samples: deque[_Sample] = deque(maxlen=int(_HOUR_SECONDS / interval_seconds))

    async def run(self) -> None:
        """Add a sample every interval, until cancelled."""
        while True:
            self.add(await self._models.resources())
            await asyncio.sleep(self._interval_seconds)

    def record(self) -> dict[str, Any]:
        """Return the record of GET /resources/history, oldest sample first."""
        samples = [sample._asdict() | {"at": sample.at.isoformat(timespec="milliseconds")} for sample in self._samples]
        return {"interval_seconds": self._interval_seconds, "samples": samples}

    def clear(self) -> None:
        self._samples.clear()

    def add(self, resources: Mapping[str, Any]) -> None:
        vram, ram = resources["vram"], resources["ram"]
        used = vram["used_bytes"], vram["total_bytes"], ram["used_bytes"], ram["total_bytes"]
        self._samples.append(_Sample(datetime.now(UTC), *used))

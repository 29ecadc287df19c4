"""The use of VRAM and RAM over the last hour."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from mmd.control.state.memory_use import Resources
from mmd.gateway.schedule.models import Models

_HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class MemorySample:
    at: str  # ISO 8601, UTC
    vram_used_bytes: int
    vram_total_bytes: int
    ram_used_bytes: int
    ram_total_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUseHistory:
    """Memory in use over the last hour, the oldest sample first."""

    interval_seconds: float
    samples: tuple[MemorySample, ...]


class MemoryHistory:
    """Samples of an hour, oldest first; owned by the observer."""

    def __init__(self, models: Models, *, interval_seconds: float) -> None:
        self._models = models
        self._interval_seconds = interval_seconds
        self._samples: deque[MemorySample] = deque(maxlen=int(_HOUR_SECONDS / interval_seconds))

    async def run(self) -> None:
        """Add a sample every interval, until cancelled."""
        while True:
            self.add(await self._models.resources())
            await asyncio.sleep(self._interval_seconds)

    def record(self) -> MemoryUseHistory:
        return MemoryUseHistory(self._interval_seconds, tuple(self._samples))

    def clear(self) -> None:
        self._samples.clear()

    def add(self, resources: Resources) -> None:
        vram, ram, at = resources.vram, resources.ram, datetime.now(UTC).isoformat(timespec="milliseconds")
        self._samples.append(MemorySample(at, vram.used_bytes, vram.total_bytes, ram.used_bytes, ram.total_bytes))

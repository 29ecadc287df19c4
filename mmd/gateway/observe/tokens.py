"""Count tokens in and out by model from the engines' own totals, without reading responses.

An engine's total starts at zero with each process; the gateway's continues over all of them. What an engine counted
before the gateway started is not counted: the previous gateway did that.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from mmd.gateway.observe.counters import Counters, Counts
from mmd.gateway.observe.scrape import EngineMetrics, EngineProcess, read_metrics
from mmd.gateway.schedule.models import Models
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

_READ_SECONDS = 5.0
_TIMEOUT_SECONDS = 1.0
_SWAP_TIMEOUT_SECONDS = 0.25  # llama-server answers in 2 ms, vLLM in 20


class TokenTotals:
    """Tokens by model and direction, over all processes of its engine."""

    def __init__(self, since: EngineProcess | None = None) -> None:
        """Engines that started after `since` (by default, this process) are counted from their start."""
        self.counts = Counts()  # model, direction
        self._since_ticks = (since or EngineProcess.of(os.getpid())).started_ticks
        self._seen: dict[str, tuple[EngineProcess, dict[str, float]]] = {}

    def note(self, model_id: str, page: EngineMetrics) -> None:
        """Add what an engine counted since its last page. An older page, which may arrive late, adds nothing."""
        from mmd.control.models.installed_engines import token_counters  # an idle gateway does without the engines

        totals = {direction: page.total(names) for direction, names in token_counters().items()}
        process, before = self._seen.get(model_id, (None, {}))
        if process != page.process:
            before = dict.fromkeys(totals, 0.0) if page.process.started_ticks > self._since_ticks else totals
        totals = {direction: max(total, before[direction]) for direction, total in totals.items()}
        self._seen[model_id] = page.process, totals
        for direction, total in totals.items():
            self.counts[model_id, direction] += round(total - before[direction])


class EngineScraper:
    """Reads the engines' metrics pages: for GET /metrics, before swaps, and often enough to miss few tokens when an
    engine ends.
    """

    def __init__(self, models: Models, counters: Counters) -> None:
        self.errors = Counts()  # model
        self.tokens = TokenTotals()
        self._models = models
        self._counters = counters
        self._responses: dict[str, int] = {}  # by model, when its page was last read

    async def run(self) -> None:
        """Read the pages of engines that have responded since, until cancelled."""
        while True:
            await asyncio.sleep(_READ_SECONDS)
            await self.read(self._models_to_read())

    async def read_before_swap(self) -> None:
        """Read the pages of models that have responded since: an engine's totals are lost when it ends."""
        if models := self._models_to_read():
            reading = spawn("engine metrics before a swap", self.read(models))
            await asyncio.wait((reading,), timeout=_SWAP_TIMEOUT_SECONDS)

    async def read(self, models: Iterable[str]) -> dict[str, EngineMetrics]:
        """Return the metrics pages of those of these models that are resident and whose engine has one."""
        addresses = {model_id: address for model_id in models if (address := self._models.address(model_id))}
        pages = await asyncio.gather(*(self._page(*each) for each in addresses.items()))
        return {model_id: page for model_id, page in zip(addresses, pages, strict=True) if page is not None}

    async def _page(self, model_id: str, address: str) -> EngineMetrics | None:
        self._responses[model_id] = self._counters.responses().get(model_id, 0)
        try:
            page = await read_metrics(address, within_seconds=_TIMEOUT_SECONDS)
        except (OSError, ValueError) as error:
            self.errors[(model_id,)] += 1
            _log.debug("cannot read the engine metrics of %s: %r", model_id, error)
            return None
        self.tokens.note(model_id, page)
        return page

    def _models_to_read(self) -> list[str]:
        return [
            model_id
            for model_id, count in self._counters.responses().items()
            if count != self._responses.get(model_id, 0)
        ]

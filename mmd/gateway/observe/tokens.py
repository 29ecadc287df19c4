"""Tokens in and out by model, from the engines' own totals: no answer is read for it.

A total belongs to one run of an engine, and begins at zero with it; ours goes on over all runs. What an engine had
counted before the gateway started was the business of the gateway before.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from mmd.gateway.observe.counters import Counters, Counts
from mmd.gateway.observe.scrape import TOKENS_IN, TOKENS_OUT, EngineMetrics, EngineProcess, read_metrics
from mmd.gateway.schedule.models import Models
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_PATIENCE_SECONDS = 1.0
_SWAP_WAITS_SECONDS = 0.25  # llama-server answers in 2 ms, vLLM in 20
_DIRECTIONS = {"in": TOKENS_IN, "out": TOKENS_OUT}


class TokenTotals:
    def __init__(self, since: EngineProcess | None = None) -> None:
        """Runs that began after `since`, by default this process, are counted from their beginning."""
        self.counts = Counts()  # model, direction
        self._since_ticks = (since or EngineProcess.of(os.getpid())).started_ticks
        self._seen: dict[str, tuple[EngineProcess, dict[str, float]]] = {}

    def note(self, model_id: str, page: EngineMetrics) -> None:
        """Pages may come in another order than they were asked for."""
        totals = {direction: page.total(names) for direction, names in _DIRECTIONS.items()}
        process, before = self._seen.get(model_id, (None, {}))
        if process != page.process:
            before = dict.fromkeys(totals, 0.0) if page.process.started_ticks > self._since_ticks else totals
        totals = {direction: max(total, before[direction]) for direction, total in totals.items()}
        self._seen[model_id] = page.process, totals
        for direction, total in totals.items():
            self.counts[model_id, direction] += round(total - before[direction])


class EngineScraper:
    """Reads them: when asked, and so often that few tokens are missed when an engine ends."""

    def __init__(self, models: Models, counters: Counters) -> None:
        self.errors = Counts()  # model
        self.tokens = TokenTotals()
        self._models = models
        self._counters = counters
        self._responses: dict[str, int] = {}  # of each model, when its page was last read

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.read(self._have_answered())

    async def read_before_swap(self) -> None:
        """Those of models that have answered since: with an engine that ends, its totals are gone."""
        if models := self._have_answered():
            reading = spawn("engine metrics before a swap", self.read(models))
            await asyncio.wait((reading,), timeout=_SWAP_WAITS_SECONDS)

    async def read(self, models: Iterable[str]) -> dict[str, EngineMetrics]:
        """The pages of those models that are resident and whose engine has one."""
        addresses = {model_id: address for model_id in models if (address := self._models.address(model_id))}
        pages = await asyncio.gather(*(self._page(*each) for each in addresses.items()))
        return {model_id: page for model_id, page in zip(addresses, pages, strict=True) if page is not None}

    async def _page(self, model_id: str, address: str) -> EngineMetrics | None:
        self._responses[model_id] = self._counters.responses().get(model_id, 0)
        try:
            page = await read_metrics(address, within_seconds=_PATIENCE_SECONDS)
        except (OSError, ValueError) as error:
            self.errors[(model_id,)] += 1
            _log.debug("%s does not say how its engine fares: %r", model_id, error)
            return None
        self.tokens.note(model_id, page)
        return page

    def _have_answered(self) -> list[str]:
        return [
            model_id
            for model_id, count in self._counters.responses().items()
            if count != self._responses.get(model_id, 0)
        ]

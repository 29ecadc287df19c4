"""Add a swap to the swap events and to the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mmd.control.lifecycle.phases import monotonic
from mmd.control.state import swap_events
from mmd.journal import about
from mmd.units.names import engine_unit

_log = logging.getLogger(__name__)

_MAX_LINE_CHARACTERS = 300  # of each line of an engine in the swap event: a line may hold a whole traceback


@dataclass(frozen=True, slots=True)
class SwapSummary:
    """What all records of one swap say."""

    began: float  # on the clock of `monotonic`
    why: str
    evicted: tuple[str, ...]
    why_evicted: Mapping[str, str]


async def record_swap(
    swap: SwapSummary,
    model_id: str,
    outcome: swap_events.Outcome,
    cause: str,
    phases: Mapping[str, float],
    lines: tuple[str, ...] = (),
) -> float:
    """Record how the activation of one model ended. Return the seconds it took."""
    seconds = monotonic() - swap.began
    event = swap_events.SwapEvent(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model=model_id,
        evicted=swap.evicted,
        outcome=outcome,
        why=swap.why,
        cause=cause,
        seconds=round(seconds, 4),
        phases=phases,
        engine_lines=tuple(line[:_MAX_LINE_CHARACTERS] for line in lines),
        why_evicted=swap.why_evicted,
    )
    await asyncio.to_thread(swap_events.keep, event)
    took = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in phases.items())
    fields = about(model_id, unit=engine_unit(model_id), event="swap")
    _log.info("%s is %s after %.3f s (%s)", model_id, outcome, seconds, took, extra=fields)
    return seconds

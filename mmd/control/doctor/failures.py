"""What has failed: units that are failed now, and engines that died within a day."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.doctor.manager import ManagerState
from mmd.control.doctor.restart_loops import outcome
from mmd.control.state import swap_events
from mmd.control.state.engine_log import Ended, lines_between, units_that_failed
from mmd.control.state.status import how_it_ended
from mmd.plan.last_words import error_line
from mmd.units.names import engine_unit, split
from mmd.units.unit_files import GATEWAY

_DAY_SECONDS = 24 * 60 * 60
# An engine that is killed after hours has nothing to say of it; one that fails to start says so at once.
_WORDS_SECONDS = 30
_HOW_TO_READ = "journalctl -n 1   # why; for permissions: sudo usermod -aG systemd-journal $USER, and log in anew"


@dataclass(frozen=True, slots=True)
class UnitFailure:
    """A unit that has failed, the last time that it did."""

    unit: str
    cause: str
    at: float | None  # seconds since the epoch; None where nobody noted it
    times: int  # within the last day
    is_failed_now: bool


@dataclass(frozen=True, slots=True)
class RecentFailures:
    found: tuple[UnitFailure, ...]
    is_journal_read: bool  # else only those are known that are failed now


def read_failures(manager: ManagerState) -> RecentFailures:
    return asyncio.run(_read(manager, now=time.time()))


async def _read(manager: ManagerState, *, now: float) -> RecentFailures:
    noted = await units_that_failed(manager.control_group, since_us=int((now - _DAY_SECONDS) * 1_000_000))
    return RecentFailures(await _failures(manager, noted or ()), is_journal_read=noted is not None)


async def _failures(manager: ManagerState, noted: Sequence[Ended]) -> tuple[UnitFailure, ...]:
    times, last = Counter(one.unit for one in noted), {one.unit: one for one in noted}
    reasons = {engine_unit(one.id): one.reason for one in manager.failed}
    # The gateway has a check of its own.
    restarting = {one.unit: f"it does not start ({outcome(one)})" for one in manager.restarting if one.unit != GATEWAY}
    reasons |= restarting
    failing = [unit.name for unit in manager.units if unit.active_state == "failed" or unit.name in restarting]
    return tuple(
        [
            UnitFailure(
                unit=unit,
                cause=await _cause(unit, last.get(unit), reasons.get(unit)),
                at=last[unit].at_us / 1_000_000 if unit in last else None,
                times=times[unit],
                is_failed_now=unit in failing,
            )
            for unit in dict.fromkeys((*failing, *last))
            if not _is_token(unit)
        ]
    )


def _is_token(unit: str) -> bool:
    """Whether it is the half of a model that fails with its engine, of which all is told already."""
    parts = split(unit)
    return parts is not None and parts[0] == "resident"


async def _cause(unit: str, ended: Ended | None, reason: str | None) -> str:
    """As the swap that it spoilt has it, where there was one; else how it ended, and what it said last."""
    parts = split(unit)
    if parts is None:
        return reason or (f"it has failed ({ended.result})" if ended else "it has failed")
    swaps = [event for event in swap_events.recent() if event.model == parts[1]]
    if reason and swaps and swaps[-1].outcome == "failed":
        return swaps[-1].cause
    how = how_it_ended(ended.result, ended.status) if ended else str(reason)
    said = error_line(await _last_lines(parts[1], ended)) if ended else ""
    return f"{how}: {said}" if said else how


async def _last_lines(model_id: str, ended: Ended) -> list[str]:
    since_us, until_us = ended.at_us - _WORDS_SECONDS * 1_000_000, ended.at_us + 1_000_000
    return await lines_between(model_id, since_us=since_us, until_us=until_us)


def check_failures(reading: BackgroundRead[RecentFailures]) -> Iterator[Diagnosis]:
    """A journal that does not answer in time is no failure of anything else."""
    try:
        failures = reading.value()
    except ReadFailed as failure:
        if failure.what != reading.what:
            raise
        yield warning(failure.diagnosis.message, failure.diagnosis.hint)
    else:
        yield from _diagnoses(failures)


def _diagnoses(failures: RecentFailures) -> Iterator[Diagnosis]:
    for one in failures.found:
        parts = split(one.unit)
        name = parts[1] if parts else one.unit
        when = time.strftime("%H:%M ", time.localtime(one.at)) if one.at is not None else ""
        often = f" ({one.times} times in a day)" if one.times > 1 else ""
        message = f"{when}{name}: {one.cause}{often}"
        look = f"mmd logs {name}" if parts else f"journalctl --user -u {one.unit} -n 20"
        if one.is_failed_now:
            anew = f"mmd activate {name}" if parts else f"systemctl --user restart {one.unit}"
            yield failed(message, f"{look}   # then: {anew}")
        else:
            yield warning(message, f"{look}   # it was started again since, or stopped")
    if not failures.is_journal_read:
        yield warning("there is no journal that you may read, so only what is failed now is known", _HOW_TO_READ)
    elif not failures.found:
        yield ok("nothing has failed within a day")

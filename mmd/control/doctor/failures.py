"""Report units that are failed now, and engines that died within the last day."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.doctor.manager import ManagerState
from mmd.control.doctor.restart_loops import describe_restarts
from mmd.control.state import swap_events
from mmd.control.state.engine_log import Ended, lines_between, units_that_failed
from mmd.control.state.status import how_it_ended
from mmd.engines import all_engines
from mmd.plan.last_words import error_line
from mmd.units.names import engine_unit, split
from mmd.units.unit_files import GATEWAY

_DAY_SECONDS = 24 * 60 * 60
# An engine that fails to start logs the reason right before it ends; one killed after hours logs nothing.
_LAST_LOG_SECONDS = 30
_HOW_TO_READ = "journalctl -n 1   # shows why; permissions: sudo usermod -aG systemd-journal $USER, then log in again"


@dataclass(frozen=True, slots=True)
class UnitFailure:
    """The last failure of one unit."""

    unit: str
    cause: str
    at: float | None  # seconds since the epoch; None if the journal has no record
    times: int  # failures within the last day
    is_failed_now: bool


@dataclass(frozen=True, slots=True)
class RecentFailures:
    """The units that failed within a day or are failed now."""

    found: tuple[UnitFailure, ...]
    is_journal_read: bool  # if False, `found` has only units that are failed now


def read_failures(manager: ManagerState) -> RecentFailures:
    return asyncio.run(_read(manager, now=time.time()))


async def _read(manager: ManagerState, *, now: float) -> RecentFailures:
    noted = await units_that_failed(manager.control_group, since_us=int((now - _DAY_SECONDS) * 1_000_000))
    return RecentFailures(await _failures(manager, noted or ()), is_journal_read=noted is not None)


async def _failures(manager: ManagerState, noted: Sequence[Ended]) -> tuple[UnitFailure, ...]:
    times, last = Counter(one.unit for one in noted), {one.unit: one for one in noted}
    reasons = {engine_unit(one.id): one.reason for one in manager.failed}
    # The gateway has its own check.
    restarting = {
        one.unit: f"it does not start ({describe_restarts(one)})" for one in manager.restarting if one.unit != GATEWAY
    }
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
    """True for a model's token, which fails together with its engine; the engine is reported already."""
    parts = split(unit)
    return parts is not None and parts[0] == "resident"


async def _cause(unit: str, ended: Ended | None, reason: str | None) -> str:
    """Return the cause recorded by the failed swap; without one, the exit reason and the last error line of the log."""
    parts = split(unit)
    if parts is None:
        return reason or (f"failed ({ended.result})" if ended else "failed")
    swaps = [event for event in swap_events.recent() if event.model == parts[1]]
    if reason and swaps and swaps[-1].outcome == "failed":
        return swaps[-1].cause
    how = how_it_ended(ended.result, ended.status) if ended else str(reason)
    styles = (engine.log_style for engine in all_engines())  # the engine that served the model then is not recorded
    last_error = error_line(await _last_lines(parts[1], ended), *styles) if ended else ""
    return f"{how}: {last_error}" if last_error else how


async def _last_lines(model_id: str, ended: Ended) -> list[str]:
    since_us, until_us = ended.at_us - _LAST_LOG_SECONDS * 1_000_000, ended.at_us + 1_000_000
    return await lines_between(model_id, since_us=since_us, until_us=until_us)


def check_failures(reading: BackgroundRead[RecentFailures]) -> Iterator[Diagnosis]:
    """A slow journal is a warning: it is not a failure of any unit."""
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
        often = f" ({one.times} times in the last day)" if one.times > 1 else ""
        message = f"{when}{name}: {one.cause}{often}"
        look = f"mmd logs {name}" if parts else f"journalctl --user -u {one.unit} -n 20"
        if one.is_failed_now:
            again = f"mmd activate {name}" if parts else f"systemctl --user restart {one.unit}"
            yield failed(message, f"{look}   # then: {again}")
        else:
            yield warning(message, f"{look}   # it was restarted or stopped since")
    if not failures.is_journal_read:
        yield warning("the journal is not readable for you: only units that are failed now are listed", _HOW_TO_READ)
    elif not failures.found:
        yield ok("no failure within the last day")

"""Make a model resident: decide once, make one D-Bus call, and restore the previous model if that fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from mmd.control.lifecycle.missing_hook import kill_if_hook_missing
from mmd.control.lifecycle.phases import monotonic, read_phases
from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.lifecycle.read_ahead import ReadAhead
from mmd.control.lifecycle.units import same_launch, submit
from mmd.control.state import swap_events
from mmd.control.state.engine_log import last_words
from mmd.control.state.status import how_it_ended
from mmd.engines import engine
from mmd.errors import EngineFailed, MmdError, SwapSuperseded
from mmd.journal import about
from mmd.plan.last_words import Refusal, cause_line, refused
from mmd.plan.launch import Launch
from mmd.plan.release import ReleaseEffect, release_effect
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import NoOp, Start, Step, decide, gpu_holder, gpu_taken_since, should_restore
from mmd.units.bus import JobResult, Manager, NoSuchUnit
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks
from mmd.units.watch import Pairs, read_pairs

_log = logging.getLogger(__name__)

# vLLM's traceback of a failed start is 150 lines, and its cause is in the first third.
_MAX_LINES = 400
_MAX_ERROR_LINES = 20  # in the error for the requests that waited
_MAX_LINE_CHARACTERS = 300  # of each of them in the swap event: a line may hold a whole traceback


@dataclass(frozen=True, slots=True)
class Activation:
    """The result of an activation: why it was necessary, the model that was unloaded for it, and the seconds it took,
    in total and by phase.
    """

    model_id: str
    why: str
    evicted: str | None
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    launch: Launch | None = None  # what it runs with; None if nothing had to be done
    cut: Mapping[str, int] = field(default_factory=dict)  # running responses that were cut for it, by model

    @property
    def was_resident(self) -> bool:
        """True if the model was resident before."""
        return not self.phases


@dataclass(frozen=True, slots=True)
class _Target:
    """The goal of one activation, through all its attempts."""

    model_id: str
    evicts: bool  # it may unload another model
    occasion: str  # why mmd activates it by itself; "" if a user or a request asked for it
    began: float = field(default_factory=monotonic)


@dataclass(frozen=True, slots=True)
class _Failure:
    launch: Launch
    lines: tuple[str, ...]  # the last of the engine's output
    cause: str


@dataclass(frozen=True, slots=True)
class _Superseded:
    cause: str


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try to start or wake the model, and how it ended."""

    why: str = ""
    submitted: float = 0.0
    woke: bool = False
    previous: str | None = None  # the model on the GPU before the first try: restored if the last one fails
    was_resident: bool = False
    launch: Launch | None = None
    problem: _Failure | _Superseded | None = None  # None: the model is resident


class Swapper:
    """Activates models over one connection to the user manager. design.md has the states and the rules."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner) -> None:
        self._manager = manager
        self._hooks = hooks
        self._planner = planner

    async def activate(
        self, wanted: str, *, drain_seconds: float = 0.0, evicts: bool = True, occasion: str = ""
    ) -> Activation:
        """Make a model resident; return when it answers. `drain_seconds`, the time that the caller waited before, and
        `occasion` are only recorded.

        Raises what planning raises, before any model is unloaded; EngineFailed, with the cause and the model that was
        restored; and SwapSuperseded if another activation took the GPU, or holds it and `evicts` is false.
        """
        target = _Target(wanted, evicts, occasion)
        attempt = await self._attempt(target)
        if isinstance(attempt.problem, _Failure):
            attempt = await self._retry(target, attempt, attempt.problem)
        phases = {"drain": round(drain_seconds, 4)}
        match attempt.problem:
            case _Failure() as failure:
                error = await self._failed(wanted, attempt, failure)
                await _record(target, attempt, "failed", failure.cause, phases, failure.lines[-_MAX_ERROR_LINES:])
                raise error
            case _Superseded(cause):
                await _record(target, attempt, "superseded", cause, phases)
                message = f"{wanted} did not become resident: {cause}"
                raise SwapSuperseded(message, hint=f"mmd activate {wanted}")
            case None:
                pass
        if attempt.was_resident:
            return Activation(wanted, attempt.why, None, monotonic() - target.began)
        phases |= await read_phases(
            self._manager, wanted, evicted=attempt.previous, submitted=attempt.submitted, woke=attempt.woke
        )
        seconds = await _record(target, attempt, "resident", "", phases)
        return Activation(wanted, attempt.why, attempt.previous, seconds, phases, attempt.launch)

    async def _attempt(self, target: _Target, *, after: _Attempt | None = None) -> _Attempt:
        """Decide, submit and wait, once. `after` is the attempt that failed before this one."""
        wanted, since_us = target.model_id, time.time_ns() // 1000
        attempt = replace(after or _Attempt(), problem=None)
        with ExitStack() as meanwhile:
            async with planner_lock():
                pairs = await self._settled_pairs(wanted)
                if after is not None and gpu_taken_since(wanted, pairs):
                    return replace(attempt, problem=await self._superseded(wanted))
                launch, step = await self._decide(wanted, pairs)
                why = f"{target.occasion}: {step.why}" if target.occasion else step.why
                attempt = replace(attempt, why=why, launch=launch)
                if isinstance(step, NoOp):
                    return replace(attempt, was_resident=True)
                attempt = replace(attempt, submitted=monotonic(), woke=step.wakes)
                if isinstance(step, Start):
                    if step.previous is not None and not target.evicts:
                        return replace(attempt, problem=await self._superseded(wanted))
                    attempt = replace(attempt, previous=attempt.previous or step.previous)
                    if step.previous is not None:
                        await kill_if_hook_missing(self._manager, step.previous, self._hooks)
                    if not step.wakes:
                        meanwhile.enter_context(ReadAhead(await self._planner.files_to_read_ahead(wanted)))
                job = await submit(self._manager, launch, self._hooks, step)
            unloads = f"; unloading {attempt.previous}" if attempt.previous else ""
            _log.info("activating %s (%s)%s", wanted, attempt.why, unloads, extra=_about(wanted))
            result = await job.result()
        return replace(attempt, problem=await self._problem(launch, result, since_us, woke=attempt.woke))

    async def _problem(
        self, launch: Launch, result: JobResult, since_us: int, *, woke: bool
    ) -> _Failure | _Superseded | None:
        """Return why the model is not resident after its job; None if it is."""
        wanted = launch.model_id
        if result is JobResult.DONE and woke and not await self._is_resident(wanted):
            # The engine died asleep, or was killed because it did not wake. Only then: after a successful wake, another
            # start would leave a job on the token, and the model would be shown as starting until that job ends.
            result = await self._start_cold(wanted)
        pair = await self._pair(wanted)
        # The job is done when the engine is up. Since then the engine may have ended or been stopped.
        if result is JobResult.DONE and residency(pair) is Residency.RESIDENT:
            return None
        # The job also fails if the token was stopped during the load, which ends the engine.
        is_about_the_engine = result is JobResult.DONE or (result is JobResult.FAILED and not woke)
        if result is JobResult.CANCELED or (is_about_the_engine and not _has_token(pair)):
            return await self._superseded(wanted)
        return await self._failure(launch, since_us)

    async def _start_cold(self, wanted: str) -> JobResult:
        """Start the engine of a model that holds the token but did not wake. Return the job's result."""
        async with planner_lock():
            if not _has_token(await self._pair(wanted)):
                return JobResult.CANCELED  # another activation or a stop took the token: it must not be taken back
            job = await self._manager.submit(engine_unit(wanted), self._manager.start(token_unit(wanted)))
        return await job.result()

    async def _pair(self, model_id: str) -> Pair:
        return (await read_pairs(self._manager)).get(model_id, Pair())

    async def _is_resident(self, model_id: str) -> bool:
        return residency(await self._pair(model_id)) is Residency.RESIDENT

    async def _settled_pairs(self, wanted: str) -> Pairs:
        """Return the units, after ending an automatic restart of the wanted model that systemd has scheduled."""
        pairs = await read_pairs(self._manager)
        if pairs.get(wanted, Pair()).waits_to_restart:
            await self._manager.run_job(engine_unit(wanted), self._manager.stop(engine_unit(wanted)))
            pairs = await read_pairs(self._manager)
        return pairs

    async def _decide(self, wanted: str, pairs: Pairs) -> tuple[Launch, Step]:
        is_up = pairs.get(wanted, Pair()).engine.active in ("active", "activating")
        launch = await self._planner.launch(wanted, leaving=None if is_up else await self._leaving(wanted, pairs))
        is_same = await same_launch(self._manager, launch, self._hooks, pairs)
        if is_up and not is_same:  # its engine is replaced, and releases its own memory first
            leaving = await self._leaving(wanted, pairs)
            launch = await self._planner.launch(wanted, leaving={**leaving, engine_unit(wanted): ReleaseEffect()})
        return launch, decide(wanted, pairs, same_launch=is_same)

    async def _leaving(self, wanted: str, pairs: Pairs) -> dict[str, ReleaseEffect]:
        """Return the engine unit that releases the GPU for this model, and what it keeps."""
        holder = gpu_holder(pairs, other_than=wanted)
        if holder is None:
            return {}
        try:
            return {engine_unit(holder): release_effect(await self._planner.launch(holder))}
        except MmdError as error:
            _log.info("%s can no longer be planned: %s", holder, error.message, extra=_about(holder))
            return {engine_unit(holder): ReleaseEffect()}

    # -- failures

    async def _retry(self, target: _Target, first: _Attempt, failure: _Failure) -> _Attempt:
        """Try once more if the engine named a setting that it refuses. Return the last attempt."""
        wanted, launch = target.model_id, failure.launch
        refusal = refused(failure.lines, launch.flags, engine(launch.engine).log_style)
        if refusal is None:
            return first
        if refusal.subjects:
            try:
                await self._planner.remember(launch, refusal)
            except MmdError as error:  # a full disk, or a driver that hangs: the previous model must be restored
                _log.warning("%s: %s", wanted, error.message, extra=_about(wanted))
                return first
        change = _change(launch, refusal) or "with what is free now"
        _log.warning("%s: %s; retrying %s", wanted, refusal.output, change, extra=_about(wanted))
        try:
            return await self._attempt(target, after=first)
        except MmdError as error:
            _log.warning("%s cannot be tried again: %s", wanted, error.message, extra=_about(wanted))
            return first

    async def _failed(self, wanted: str, attempt: _Attempt, failure: _Failure) -> EngineFailed:
        restored = await self._restore(wanted, attempt.previous)
        message = f"{wanted} did not start: {failure.cause}{restored}"
        _log.warning("%s", message, extra=_about(wanted))
        hint = f"mmd logs {wanted}   # the engine's output"
        return EngineFailed(message, hint=hint, engine_lines=failure.lines[-_MAX_ERROR_LINES:])

    async def _superseded(self, wanted: str) -> _Superseded:
        winner = gpu_holder(await read_pairs(self._manager), other_than=wanted)
        return _Superseded(f"{winner} was activated meanwhile" if winner else "it was stopped meanwhile")

    async def _restore(self, failed: str, previous: str | None) -> str:
        """Activate the previous model again. Return the result as the end of a sentence."""
        async with planner_lock():
            pairs = await read_pairs(self._manager)
            if previous is None or not should_restore(previous, failed, pairs):
                if not gpu_taken_since(failed, pairs):
                    await self._manager.stop(token_unit(failed))  # otherwise systemd would keep restarting it
                return ""
            try:
                launch, step = await self._decide(previous, pairs)
            except MmdError as error:
                await self._manager.stop(token_unit(failed))
                return f"; {previous} cannot be restored: {error.message}"
            assert not isinstance(step, NoOp)  # it would hold the GPU, and `should_restore` would be false
            job = await submit(self._manager, launch, self._hooks, step)
        is_back = await job.result() is JobResult.DONE
        return f"; {previous} is resident again" if is_back else f"; {previous} did not start again either"

    async def _failure(self, launch: Launch, since_us: int) -> _Failure:
        """Return why the engine ended: systemd's result, and the cause that its output names, if any."""
        lines = await last_words(launch.model_id, since_us=since_us, count=_MAX_LINES)
        cause = cause_line(lines, engine(launch.engine).log_style)
        try:
            service = await self._manager.service(engine_unit(launch.model_id))
            how = how_it_ended(str(service["Result"]), int(service["ExecMainStatus"]))
        except NoSuchUnit:
            how = how_it_ended("success", 0)  # systemd keeps the unit of an engine that failed
        return _Failure(launch, tuple(lines), f"{how}: {cause}" if cause else how)


async def _record(
    target: _Target,
    attempt: _Attempt,
    outcome: swap_events.Outcome,
    cause: str,
    phases: Mapping[str, float],
    lines: tuple[str, ...] = (),
) -> float:
    """Add the swap to the swap events and to the journal. Return the seconds it took."""
    wanted, seconds = target.model_id, monotonic() - target.began
    event = swap_events.SwapEvent(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model=wanted,
        evicted=() if attempt.previous is None else (attempt.previous,),
        outcome=outcome,
        why=attempt.why,
        cause=cause,
        seconds=round(seconds, 4),
        phases=phases,
        engine_lines=tuple(line[:_MAX_LINE_CHARACTERS] for line in lines),
    )
    await asyncio.to_thread(swap_events.keep, event)
    took = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in phases.items())
    _log.info("%s is %s after %.3f s (%s)", wanted, outcome, seconds, took, extra=_about(wanted, event="swap"))
    return seconds


def _has_token(pair: Pair) -> bool:
    return pair.token.active == "active" and pair.token.job != "stop"


def _about(model_id: str, *, event: str = "") -> dict[str, str]:
    return about(model_id, unit=engine_unit(model_id), event=event)


def _change(launch: Launch, refusal: Refusal) -> str:
    """Say how the next start differs: "without --metrics", "with --no-repack"; "" if it does not."""
    flags = [flag for flag in launch.flags if flag.subject in refusal.subjects]
    return ", ".join(f"with {' '.join(flag.instead)}" if flag.instead else f"without {flag.subject}" for flag in flags)

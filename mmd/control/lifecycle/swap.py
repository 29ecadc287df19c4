"""A model made resident: one decision, one D-Bus call, and the previous model back if it fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from mmd.errors import EngineFailed, MmdError, StorageFailed, SwapSuperseded
from mmd.plan.last_words import Refusal, cause_line, refused
from mmd.plan.launch import Launch
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.room import ReleaseEffect, release_effect
from mmd.plan.swap import NoOp, Start, Step, decide, gpu_holder, gpu_taken_since, should_restore
from mmd.units.bus import JobResult, Manager, NoSuchUnit
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks
from mmd.units.watch import Pairs, read_pairs

_log = logging.getLogger(__name__)

# vLLM's traceback of a failed start is 150 lines, and its cause the first third of them.
_LAST_LINES = 400
_SHOWN_LINES = 20  # to those who waited for it
_NOTED_CHARACTERS = 300  # of each of them, on record: a line may hold a whole traceback


@dataclass(frozen=True, slots=True)
class Activation:
    """How an activation went: what was done and why, who went for it, and how long it took, in all and by phase."""

    model_id: str
    why: str
    evicted: str | None
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Swap:
    """One activation on its way."""

    wanted: str
    evicts: bool  # whoever has the GPU goes
    occasion: str  # "" where somebody asked for it
    since_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    began: float = field(default_factory=monotonic)
    submitted: float = 0.0
    previous: str | None = None  # who had the GPU, and gets it back if this fails
    why: str = ""
    cause: str = ""  # what it failed of
    engine_lines: tuple[str, ...] = ()  # the last of them before it did
    already: bool = False
    woke: bool = False

    @property
    def seconds(self) -> float:
        return monotonic() - self.began


@dataclass(frozen=True, slots=True)
class _Failure:
    launch: Launch
    lines: tuple[str, ...]
    cause: str


class Swapper:
    """Activations over one connection to the user manager."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner) -> None:
        self._manager = manager
        self._hooks = hooks
        self._planner = planner

    async def activate(
        self, wanted: str, *, drain_seconds: float = 0.0, evicts: bool = True, occasion: str = ""
    ) -> Activation:
        """Make a model resident; returns when it answers. For the record: `drain_seconds`, what was waited for before,
        and the `occasion`.

        Raises what planning raises, before anybody is evicted; EngineFailed, naming the cause and who is resident
        instead; and SwapSuperseded where another activation took the GPU in between, or has it and is not to be
        evicted.
        """
        swap = _Swap(wanted, evicts, occasion)
        drain_seconds = round(drain_seconds, 4)
        try:
            failure = await self._attempt(swap)
            if failure is not None:
                failure = await self._attempt_without_what_was_refused(swap, failure)
            if failure is not None:
                raise await self._failed(swap, failure)
        except (EngineFailed, SwapSuperseded) as error:
            outcome: swap_events.Outcome = "failed" if isinstance(error, EngineFailed) else "superseded"
            await _keep(swap, outcome, phases={"drain": drain_seconds})
            raise
        if swap.already:
            return Activation(wanted, swap.why, None, swap.seconds)
        phases = {"drain": drain_seconds} | await read_phases(
            self._manager, wanted, evicted=swap.previous, submitted=swap.submitted, woke=swap.woke
        )
        await _keep(swap, "resident", phases=phases)
        return Activation(wanted, swap.why, swap.previous, swap.seconds, phases)

    async def _attempt(self, swap: _Swap, *, again: bool = False) -> _Failure | None:
        """Decide, submit and wait. Returns how it failed; raises SwapSuperseded."""
        wanted = swap.wanted
        with ExitStack() as meanwhile:
            async with planner_lock():
                pairs = await self._settled_pairs(wanted)
                if again and gpu_taken_since(wanted, pairs):
                    raise await self._superseded(swap)
                launch, step = await self._decide(wanted, pairs)
                swap.why = f"{swap.occasion}: {step.why}" if swap.occasion else step.why
                if isinstance(step, NoOp):
                    swap.already = True
                    return None
                swap.submitted, swap.woke = monotonic(), step.wakes
                if isinstance(step, Start):
                    if step.previous is not None and not swap.evicts:
                        raise await self._superseded(swap)
                    swap.previous = swap.previous or step.previous
                    if step.previous is not None:
                        await kill_if_hook_missing(self._manager, step.previous, self._hooks)
                    if not step.wakes:
                        meanwhile.enter_context(ReadAhead(await self._planner.files_to_read_ahead(wanted)))
                job = await submit(self._manager, launch, self._hooks, step)
            goes = f"; {swap.previous} goes" if swap.previous else ""
            _log.info("activating %s (%s)%s", wanted, swap.why, goes, extra=_fields(wanted))
            result = await job.result()
        if result is JobResult.DONE and swap.woke and not await self._is_resident(wanted):
            # It died asleep, or could not be woken and was ended: it is being started. Where it did wake, asking for a
            # start again would leave a job on the token, and for as long it would seem to be starting.
            result = await self._started_cold(wanted)
        pair = await self._pair(wanted)
        # A job that is done says that the engine was up. It may have ended since, or been stopped.
        if result is JobResult.DONE and residency(pair) is Residency.RESIDENT:
            return None
        # One that failed may have been ended by the release of a token that was taken away while it loaded.
        is_about_the_engine = result is JobResult.DONE or (result is JobResult.FAILED and not swap.woke)
        if result is JobResult.CANCELED or (is_about_the_engine and not _has_token(pair)):
            raise await self._superseded(swap)
        return await self._what_happened(launch, swap.since_us)

    async def _started_cold(self, wanted: str) -> JobResult:
        """How the start of a model went that has the token, but whose engine did not wake."""
        async with planner_lock():
            if not _has_token(await self._pair(wanted)):
                return JobResult.CANCELED  # it was taken away, or stopped, and must not be taken back
            job = await self._manager.submit(engine_unit(wanted), self._manager.start(token_unit(wanted)))
        return await job.result()

    async def _pair(self, model_id: str) -> Pair:
        return (await read_pairs(self._manager)).get(model_id, Pair())

    async def _is_resident(self, model_id: str) -> bool:
        return residency(await self._pair(model_id)) is Residency.RESIDENT

    async def _settled_pairs(self, wanted: str) -> Pairs:
        """What runs, once systemd does not wait to restart the wanted model by itself."""
        pairs = await read_pairs(self._manager)
        if pairs.get(wanted, Pair()).waits_to_restart:
            await self._manager.run_job(engine_unit(wanted), self._manager.stop(engine_unit(wanted)))
            pairs = await read_pairs(self._manager)
        return pairs

    async def _decide(self, wanted: str, pairs: Pairs) -> tuple[Launch, Step]:
        is_up = pairs.get(wanted, Pair()).engine.active in ("active", "activating")
        launch = await self._planner.launch(wanted, leaving=None if is_up else await self._leaving(wanted, pairs))
        is_same = await same_launch(self._manager, launch, self._hooks, pairs)
        if is_up and not is_same:  # it is ended and started anew: what it has of the GPU is free then
            leaving = await self._leaving(wanted, pairs)
            launch = await self._planner.launch(wanted, leaving={**leaving, engine_unit(wanted): ReleaseEffect()})
        return launch, decide(wanted, pairs, same_launch=is_same)

    async def _leaving(self, wanted: str, pairs: Pairs) -> dict[str, ReleaseEffect]:
        """Who gives the GPU back for it, by unit, and what they do not give back."""
        going = gpu_holder(pairs, other_than=wanted)
        if going is None:
            return {}
        try:
            return {engine_unit(going): release_effect(await self._planner.launch(going))}
        except MmdError as error:
            _log.info("%s cannot be planned any more: %s", going, error.message, extra=_fields(going))
            return {engine_unit(going): ReleaseEffect()}

    # -- when it fails

    async def _attempt_without_what_was_refused(self, swap: _Swap, failure: _Failure) -> _Failure | None:
        """Once more, where the engine has named a setting that it will not have. Returns how the last attempt went."""
        refusal = refused(failure.lines, failure.launch.flags, engine(failure.launch.engine).log_style)
        if refusal is None:
            return failure
        if refusal.subjects:
            try:
                await self._planner.remember(failure.launch, refusal)
            except StorageFailed as error:  # a full disk must not keep the previous model from coming back
                _log.warning("%s: %s", swap.wanted, error.message, extra=_fields(swap.wanted))
                return failure
        change = _change(failure.launch, refusal) or "with what is free now"
        _log.warning("%s: %s; once more %s", swap.wanted, refusal.output, change, extra=_fields(swap.wanted))
        swap.since_us = time.time_ns() // 1000
        return await self._attempt(swap, again=True)

    async def _failed(self, swap: _Swap, failure: _Failure) -> EngineFailed:
        swap.cause, swap.engine_lines = failure.cause, failure.lines[-_SHOWN_LINES:]
        returned = await self._restore(swap.wanted, swap.previous)
        _log.warning("%s did not start: %s%s", swap.wanted, failure.cause, returned, extra=_fields(swap.wanted))
        return EngineFailed(
            f"{swap.wanted} did not start: {failure.cause}{returned}",
            hint=f"mmd logs {swap.wanted}   # the engine's own words",
            engine_lines=swap.engine_lines,
        )

    async def _superseded(self, swap: _Swap) -> SwapSuperseded:
        winner = gpu_holder(await read_pairs(self._manager), other_than=swap.wanted)
        swap.cause = f"{winner} was asked for in between" if winner else "it was stopped in between"
        message = f"{swap.wanted} did not become resident: {swap.cause}"
        return SwapSuperseded(message, hint=f"mmd activate {swap.wanted}")

    async def _restore(self, failed: str, previous: str | None) -> str:
        """Give the GPU back to who had it. Says how that went, as the end of a sentence."""
        async with planner_lock():
            pairs = await read_pairs(self._manager)
            if previous is None or not should_restore(previous, failed, pairs):
                if not gpu_taken_since(failed, pairs):
                    await self._manager.stop(token_unit(failed))  # or systemd would go on trying to restart it
                return ""
            try:
                launch, step = await self._decide(previous, pairs)
            except MmdError as error:
                await self._manager.stop(token_unit(failed))
                return f"; {previous} cannot come back: {error.message}"
            assert not isinstance(step, NoOp)  # it would hold the GPU, and then it would not have to come back
            job = await submit(self._manager, launch, self._hooks, step)
        back = await job.result() is JobResult.DONE
        return f"; {previous} is resident again" if back else f"; {previous} did not come back either"

    async def _what_happened(self, launch: Launch, since_us: int) -> _Failure:
        """What the engine died of, in its own words where it left any."""
        lines = await last_words(launch.model_id, since_us=since_us, count=_LAST_LINES)
        said = cause_line(lines, engine(launch.engine).log_style)
        try:
            service = await self._manager.service(engine_unit(launch.model_id))
            how = how_it_ended(str(service["Result"]), int(service["ExecMainStatus"]))
        except NoSuchUnit:
            how = how_it_ended("success", 0)  # systemd keeps the unit of an engine that failed
        return _Failure(launch, tuple(lines), f"{how}: {said}" if said else how)


async def _keep(swap: _Swap, outcome: swap_events.Outcome, *, phases: Mapping[str, float]) -> None:
    event = swap_events.SwapEvent(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model=swap.wanted,
        evicted=swap.previous,
        outcome=outcome,
        why=swap.why,
        cause=swap.cause,
        seconds=round(swap.seconds, 4),
        phases=phases,
        engine_lines=tuple(line[:_NOTED_CHARACTERS] for line in swap.engine_lines),
    )
    await asyncio.to_thread(swap_events.keep, event)
    took = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in phases.items())
    fields = _fields(swap.wanted) | {"MMD_EVENT": "swap"}
    _log.info("%s is %s after %.3f s (%s)", swap.wanted, outcome, swap.seconds, took, extra=fields)


def _has_token(pair: Pair) -> bool:
    return pair.token.active == "active" and pair.token.job != "stop"


def _fields(model_id: str) -> dict[str, str]:
    return {"MMD_MODEL": model_id, "MMD_UNIT": engine_unit(model_id)}


def _change(launch: Launch, refusal: Refusal) -> str:
    """Say how the next start differs: "without --metrics", "with --no-repack"; "" if it does not."""
    flags = [flag for flag in launch.flags if flag.subject in refusal.subjects]
    return ", ".join(f"with {' '.join(flag.instead)}" if flag.instead else f"without {flag.subject}" for flag in flags)

"""Make models resident: decide once, make one D-Bus call, and restore what was unloaded if that fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from mmd.control.lifecycle.activation import Activation, Attempt, Failure, GateRefusal, Problem, Superseded
from mmd.control.lifecycle.missing_hook import kill_if_hook_missing
from mmd.control.lifecycle.phases import monotonic, read_phases
from mmd.control.lifecycle.placing import ActivationRequest, EndFirst, LookAgain, Placer, SwapPlan
from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.lifecycle.read_ahead import ReadAhead
from mmd.control.lifecycle.swap_record import record_swap
from mmd.control.lifecycle.units import (
    LOOK_AGAIN_SECONDS,
    MAX_REFUSALS,
    end_units,
    jobs_in_progress,
    read_refusal,
    submit,
)
from mmd.control.state.engine_log import last_words
from mmd.control.state.status import how_it_ended
from mmd.engines import engine
from mmd.errors import EngineFailed, MemoryTaken, MmdError, PlacementChanged, SwapSuperseded
from mmd.journal import about
from mmd.plan.last_words import Refusal, cause_line, refused
from mmd.plan.launch import Launch
from mmd.plan.queue import NoRoom
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import Action, gpu_holders, taken_again
from mmd.units.bus import JobResult, Manager, UnitJob
from mmd.units.bus_errors import NoSuchUnit, UnitExists
from mmd.units.lock import planner_lock
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks
from mmd.units.watch import Pairs, UnitStates, read_pairs, read_states

_log = logging.getLogger(__name__)

# vLLM's traceback of a failed start is 150 lines, and its cause is in the first third.
_MAX_LINES = 400
_MAX_ERROR_LINES = 20  # in the error for the requests that waited

_FIRST_LOOK_SECONDS, _MAX_LOOK_SECONDS = 0.006, 0.1


class Swapper:
    """Activates models over one connection to the user manager. design.md has the states and the rules."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner) -> None:
        self._manager = manager
        self._hooks = hooks
        self._planner = planner
        self._placer = Placer(manager, hooks, planner)

    async def activate(
        self, request: ActivationRequest, *, drain_seconds: float = 0.0, occasion: str = ""
    ) -> Activation:
        """Make models resident; return when they answer. `drain_seconds`, the time that the caller waited before, and
        `occasion`, why mmd activates them by itself, are only recorded.

        Raises what planning raises, and PlacementChanged or MemoryTaken if the request may not unload what would have
        to leave, before any model is unloaded; EngineFailed, with the cause and the models that were restored; and
        SwapSuperseded if another activation took the memory.
        """
        began = monotonic()
        attempt = await self._attempt(request)
        if isinstance(attempt.problem, Failure):
            attempt = await self._retry(request, attempt, attempt.problem)
        phases = {"drain": round(drain_seconds, 4)}
        match attempt.problem:
            case Failure() as failure:
                error, model_id = await self._failed(request, attempt, failure), failure.launch.model_id
                swap, lines = attempt.swap(model_id, began, occasion), failure.lines[-_MAX_ERROR_LINES:]
                await record_swap(swap, model_id, "failed", failure.cause, phases, lines)
                raise error
            case Superseded(model_id, cause) | GateRefusal(model_id, cause):
                if isinstance(attempt.problem, GateRefusal):  # no other activation has taken the memory
                    cause += await self._restore(request.model_ids, attempt)
                await record_swap(attempt.swap(model_id, began, occasion), model_id, "superseded", cause, phases)
                message = f"{model_id} did not become resident: {cause}"
                raise SwapSuperseded(message, hint=f"mmd activate {model_id}")
            case None:
                pass
        assert attempt.plan is not None
        why = "; ".join(dict.fromkeys(attempt.plan.why.values()))
        if not attempt.plan.launches and not attempt.plan.awaited:
            return Activation(request.model_ids, why, (), monotonic() - began)
        slowest: Mapping[str, float] = {}
        for model_id in (*attempt.plan.launches, *attempt.plan.awaited):
            taken = phases | await read_phases(
                self._manager,
                model_id,
                evicted=attempt.evicted,
                submitted=attempt.submitted,
                woke=model_id in attempt.woken,
            )
            await record_swap(attempt.swap(model_id, began, occasion), model_id, "resident", "", taken)
            slowest = max(slowest, taken, key=lambda one: sum(one.values()))
        seconds = monotonic() - began
        return Activation(request.model_ids, why, attempt.evicted, seconds, slowest, attempt.plan.launches)

    async def _attempt(self, request: ActivationRequest, *, after: Attempt | None = None) -> Attempt:
        """Decide, submit and wait; plan again while gates refuse. `after` is the attempt that failed before."""
        attempt = after or Attempt()
        for _ in range(MAX_REFUSALS):
            try:
                attempt = await self._try_once(request, attempt, is_retry=after is not None)
            except MmdError:
                if isinstance(attempt.problem, GateRefusal):  # models have left for it before
                    await self._restore(request.model_ids, attempt)
                raise
            if not isinstance(attempt.problem, GateRefusal):
                break
            _log.warning("%s: %s", attempt.problem.model_id, attempt.problem.cause, extra=_about(request.model_ids[0]))
        return attempt

    async def _try_once(self, request: ActivationRequest, before: Attempt, *, is_retry: bool) -> Attempt:
        since_us = time.time_ns() // 1000
        with ExitStack() as meanwhile:
            delay, end = _FIRST_LOOK_SECONDS, monotonic() + LOOK_AGAIN_SECONDS
            while True:
                async with planner_lock():
                    states = await self._settled_states(request.model_ids)
                    pairs = states.pairs
                    if is_retry and (again := [one for one in request.model_ids if taken_again(one, pairs)]):
                        return replace(before, problem=Superseded(again[0], "another activation has started it"))
                    step = await self._placer.step(request, states)
                    match step:
                        case NoRoom(why) if is_retry:
                            return replace(before, problem=Superseded(request.model_ids[0], why))
                        case NoRoom(why):
                            raise _no_room(request, why)
                        case LookAgain():
                            pass
                        case EndFirst(units):
                            await end_units(self._manager, units)
                        case SwapPlan() as plan:
                            try:
                                attempt, jobs = await self._submit(plan, before, meanwhile)
                            except (UnitExists, NoSuchUnit) as error:
                                _log.info("units have changed; looking again: %s", error.message)
                            else:
                                break
                if monotonic() > end:
                    leaving = ", ".join(step.model_ids) if isinstance(step, LookAgain) else "units that changed"
                    return replace(before, problem=Superseded(request.model_ids[0], f"{leaving} did not end in time"))
                await asyncio.sleep(delay)
                delay = min(_MAX_LOOK_SECONDS, 1.5 * delay)
            results = {model_id: await job.result() for model_id, job in jobs.items()}
        problems = [await self._problem(attempt, one, result, since_us) for one, result in results.items()]
        return replace(attempt, problem=next((problem for problem in problems if problem is not None), None))

    async def _submit(
        self, plan: SwapPlan, before: Attempt, meanwhile: ExitStack
    ) -> tuple[Attempt, Mapping[str, UnitJob]]:
        """Submit a plan. Return the attempt so far, and the jobs to wait for by model."""
        attempt = Attempt(
            plan=plan,
            submitted=monotonic(),
            evicted=tuple(sorted({*before.evicted, *plan.left.evicted})),
            restarted=tuple(sorted({*before.restarted, *plan.restarted})),
            why_evicted={**before.why_evicted, **plan.left.why},
        )
        jobs = dict(await jobs_in_progress(self._manager, plan.awaited))
        if not plan.launches:
            return attempt, jobs
        for model_id in plan.left.tokens:
            await kill_if_hook_missing(self._manager, model_id, self._hooks)
        cold = [model_id for model_id in plan.launches if plan.actions[model_id] is not Action.WAKE]
        files = [file for model_id in cold for file in await self._planner.files_to_read_ahead(model_id)]
        meanwhile.enter_context(ReadAhead(files))
        jobs |= await submit(self._manager, self._hooks, plan)
        for model_id in plan.launches:
            reasons = (f"{one}: {plan.left.why.get(one, '')}" for one in plan.left.evicted)
            unloads = f"; unloading {', '.join(reasons)}" if plan.left.evicted else ""
            _log.info("activating %s (%s)%s", model_id, plan.why[model_id], unloads, extra=_about(model_id))
        return attempt, jobs

    async def _problem(self, attempt: Attempt, wanted: str, result: JobResult, since_us: int) -> Problem | None:
        """Return why a model is not resident after its job; None if it is."""
        assert attempt.plan is not None
        woke = wanted in attempt.woken
        if result is JobResult.DONE and woke and not await self._is_resident(wanted):
            # The engine died asleep, or was killed because it did not wake. Only then: after a successful wake, another
            # start would leave a job on the token, and the model would be shown as starting until that job ends.
            result = await self._start_cold(wanted)
        pair = await self._pair(wanted)
        # The job is done when the engine is up. Since then the engine may have ended or been stopped.
        if result is JobResult.DONE and residency(pair) is Residency.RESIDENT:
            return None
        if why_refused := await asyncio.to_thread(read_refusal, wanted):
            return GateRefusal(wanted, f"its token was not admitted: {why_refused}")
        # The job also fails if the token was stopped during the load, which ends the engine.
        is_about_the_engine = result is JobResult.DONE or (result is JobResult.FAILED and not woke)
        if result is JobResult.CANCELED or (is_about_the_engine and not _has_token(pair)):
            return Superseded(wanted, await self._winner(wanted, attempt))
        launch = attempt.plan.launches.get(wanted) or await self._planner.launch(wanted)
        return await self._failure(launch, since_us)

    async def _winner(self, wanted: str, attempt: Attempt) -> str:
        """Return why a model that was to come has no token: for which model it had to leave, if for any."""
        assert attempt.plan is not None
        launch = attempt.plan.launches.get(wanted)
        pairs = await read_pairs(self._manager)
        newer = [
            name
            for name in gpu_holders(pairs, other_than=(wanted, *attempt.plan.holders))
            if launch is None or (holding := pairs[name].holding) is None or holding.uses.keys() & launch.share.keys()
        ]
        return f"{newer[0]} was activated meanwhile" if newer else "it was stopped meanwhile"

    async def _start_cold(self, wanted: str) -> JobResult:
        """Start the engine of a model that holds the token but did not wake. Return the job's result."""
        async with planner_lock():
            if not _has_token(await self._pair(wanted)):
                return JobResult.CANCELED  # another activation or a stop took the token: it must not be taken back
            job = await self._manager.submit(engine_unit(wanted), self._manager.start(engine_unit(wanted)))
        return await job.result()

    async def _pair(self, model_id: str) -> Pair:
        return (await read_pairs(self._manager)).get(model_id, Pair())

    async def _is_resident(self, model_id: str) -> bool:
        return residency(await self._pair(model_id)) is Residency.RESIDENT

    async def _settled_states(self, wanted: Sequence[str]) -> UnitStates:
        """Return the units, after ending automatic restarts of the wanted models that systemd has scheduled."""
        states = await read_states(self._manager)
        if waiting := [model_id for model_id in wanted if states.pairs.get(model_id, Pair()).waits_to_restart]:
            await asyncio.gather(*(self._stop(engine_unit(model_id)) for model_id in waiting))
            states = await read_states(self._manager)
        return states

    async def _stop(self, unit: str) -> None:
        await self._manager.run_job(unit, self._manager.stop(unit))

    # -- failures

    async def _retry(self, request: ActivationRequest, first: Attempt, failure: Failure) -> Attempt:
        """Try once more if the engine named a setting that it refuses. Return the last attempt."""
        wanted, launch = failure.launch.model_id, failure.launch
        refusal = refused(failure.lines, launch.flags, engine(launch.engine).log_style)
        if refusal is None:
            return first
        if refusal.subjects:
            try:
                await self._planner.remember(launch, refusal)
            except MmdError as error:  # a full disk, or a driver that hangs: the previous models must be restored
                _log.warning("%s: %s", wanted, error.message, extra=_about(wanted))
                return first
        change = _change(launch, refusal) or "with what is free now"
        _log.warning("%s: %s; retrying %s", wanted, refusal.output, change, extra=_about(wanted))
        try:
            return await self._attempt(request, after=first)
        except MmdError as error:
            _log.warning("%s cannot be tried again: %s", wanted, error.message, extra=_about(wanted))
            return first

    async def _failed(self, request: ActivationRequest, attempt: Attempt, failure: Failure) -> EngineFailed:
        restored = await self._restore(request.model_ids, attempt)
        wanted = failure.launch.model_id
        message = f"{wanted} did not start: {failure.cause}{restored}"
        _log.warning("%s", message, extra=_about(wanted))
        hint = f"mmd logs {wanted}   # the engine's output"
        return EngineFailed(message, hint=hint, engine_lines=failure.lines[-_MAX_ERROR_LINES:])

    async def _restore(self, failed: Sequence[str], attempt: Attempt) -> str:
        """Stop the models that came with a failed activation, and activate those again that were unloaded for it.

        Return the result as the end of a sentence.
        """
        assert attempt.plan is not None
        pairs = await read_pairs(self._manager)
        if any(taken_again(model_id, pairs) for model_id in failed if not _is_up(model_id, pairs)):
            return ""
        # Otherwise systemd would keep restarting the engine that failed; what came with it would lie in the way.
        for model_id in attempt.plan.launches:
            await self._stop(token_unit(model_id))
        previous = (*attempt.evicted, *attempt.restarted)
        if not previous:
            return ""
        names = " and ".join(previous)
        is_one = len(previous) == 1
        try:
            back = await self._attempt(ActivationRequest(previous, evicts=False))
        except MmdError as error:
            return f"; {names} cannot be restored: {error.message}"
        match back.problem:
            case None:
                return f"; {names} {'is' if is_one else 'are'} resident again"
            case Failure():
                return f"; {names} did not start again either"
            case _:
                return ""  # another activation took the memory

    async def _failure(self, launch: Launch, since_us: int) -> Failure:
        """Return why the engine ended: systemd's result, and the cause that its output names, if any."""
        lines = await last_words(launch.model_id, since_us=since_us, count=_MAX_LINES)
        cause = cause_line(lines, engine(launch.engine).log_style)
        try:
            service = await self._manager.service(engine_unit(launch.model_id))
            how = how_it_ended(str(service["Result"]), int(service["ExecMainStatus"]))
        except NoSuchUnit:
            how = how_it_ended("success", 0)  # systemd keeps the unit of an engine that failed
        return Failure(launch, tuple(lines), f"{how}: {cause}" if cause else how)


def _no_room(request: ActivationRequest, why: str) -> SwapSuperseded:
    """Return the error of a request that may not unload what would have to leave for it."""
    wanted = " and ".join(request.model_ids)
    hint = f"mmd activate {request.model_ids[0]}   # unloads other models"
    if request.staying or request.devices is not None:
        return PlacementChanged(f"{wanted} would now be placed otherwise: {why}", hint=hint)
    return MemoryTaken(f"{wanted} is not loaded: {why}", hint=hint)


def _has_token(pair: Pair) -> bool:
    return pair.token.active == "active" and pair.token.job != "stop"


def _is_up(model_id: str, pairs: Pairs) -> bool:
    return residency(pairs.get(model_id, Pair())) is Residency.RESIDENT


def _about(model_id: str) -> dict[str, str]:
    return about(model_id, unit=engine_unit(model_id))


def _change(launch: Launch, refusal: Refusal) -> str:
    """Say how the next start differs: "without --metrics", "with --no-repack"; "" if it does not."""
    flags = [flag for flag in launch.flags if flag.subject in refusal.subjects]
    return ", ".join(f"with {' '.join(flag.instead)}" if flag.instead else f"without {flag.subject}" for flag in flags)

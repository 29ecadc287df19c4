"""Estimate the memory of a model from the best source: headers, its engine's report, or starts on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from mmd import engines
from mmd.control.memory import starts_log
from mmd.control.memory.breakdowns import Breakdowns
from mmd.control.memory.calibration import constants_from, is_among, is_believable
from mmd.control.memory.engine_plan import EnginePlan, served
from mmd.control.memory.starts_log import StartRecord
from mmd.control.state.refused_flags import RefusedFlags
from mmd.errors import EngineFailed, EngineMissing, StorageFailed
from mmd.machine import Machine
from mmd.plan.breakdown import Breakdown, correction
from mmd.plan.choose import without_refused
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed, Planner
from mmd.plan.estimate import Estimate, Tier
from mmd.plan.last_words import Refusal, refused
from mmd.plan.launch import Flag
from mmd.plan.predict import predict
from mmd.plan.suggestions import Candidate
from mmd.quantities import GIB, MIB
from mmd.registry.identity import identity
from mmd.registry.record import Model
from mmd.settings import Settings

_log = logging.getLogger(__name__)

# The engine makes a CUDA context for its report, which takes up to 1 GiB for a second.
_ROOM_TO_ASK_BYTES = GIB
_RESIDUE_BYTES = 32 * MIB  # difference between two starts of the same model

_Predict = Callable[[Constants], Estimate]


@dataclass(frozen=True, slots=True)
class Answer:
    estimate: Estimate
    engine: str  # that would serve it, with its version; "" if no installed engine can
    constants: Constants  # that were used
    note: str  # why a better source failed, or ""


class Estimator:
    """Estimates for one machine; `is_here` is false if it is not this machine."""

    def __init__(self, machine: Machine, settings: Settings, *, is_here: bool = True) -> None:
        self._machine = machine
        self._settings = settings
        self._is_here = is_here
        self._starts = [start for start in starts_log.read_starts() if is_believable(start)]
        self._breakdowns = Breakdowns()

    def answer(
        self,
        model: Model,
        context: int | None = None,
        *,
        candidates: Sequence[Candidate] = (),
        asks_engine: bool = True,
    ) -> Answer:
        """Estimate for `context` tokens, or for the context that the engine would choose. `candidates` are other
        quantisations.

        An engine that reports its memory takes half a second, once for each model and context.
        """
        plan = served(model, self._machine, self._settings)
        if not self._is_here and self._machine.gpus and not plan.on_gpu:
            # This machine has a build for the CPU only. The other one has GPUs, and needs an engine for them.
            plan = EnginePlan(None, (), on_gpu=True)
        own = self._start_of(model, plan)

        def predicted(constants: Constants) -> Estimate:
            return predict(
                _planner(model, plan),
                model.facts,
                self._machine,
                plan.words,
                model_id=model.id,
                context=context,
                projector_bytes=projector_bytes(model),
                on_gpu=plan.on_gpu,
                constants=constants,
                candidates=candidates,
            )

        constants = self.constants(model, plan) if own is None else self.constants(model, plan, (own,))
        found, note = predicted(constants), ""
        if own is not None:
            found = replace(found, tier=Tier.T3, error_bytes=min(found.error_bytes, _residue_bytes(own, found)))
        elif asks_engine:
            try:
                reported = self.breakdown(model, plan, found.context)
            except (EngineFailed, EngineMissing) as error:
                note = error.message
            else:
                found = self._corrected(reported, constants, found, predicted) if reported else found
        return Answer(found, plan.title, constants, note)

    def constants(self, model: Model, plan: EnginePlan, known: Sequence[StartRecord] | None = None) -> Constants:
        """Return the constants of this machine and engine, from the `known` starts or from all."""
        starts = self._starts if known is None else known
        return constants_from(starts, gpu=self.gpu(plan), engine=plan.title, defaults=_planner(model, plan).constants)

    def best_constants(self, model: Model, installed: Sequence[Installed]) -> tuple[Constants, int | None]:
        """Return the constants for a model. If they are from a start of this very model and command, return on how many
        devices it was; else None.
        """
        plan = served(model, self._machine, self._settings, installed)
        own = self._start_of(model, plan)
        if own is None:
            return self.constants(model, plan), None
        return self.constants(model, plan, (own,)), max(1, own.gpu.count(","))

    def gpu(self, plan: EnginePlan) -> str:
        """Return what memory beside the model depends on: GPUs and driver; "" on the CPU."""
        return ",".join((*(gpu.uuid for gpu in self._machine.gpus), self._machine.driver)) if plan.on_gpu else ""

    def breakdown(self, model: Model, plan: EnginePlan, context: int) -> Breakdown | None:
        """Return what the engine reports that it would allocate, from the cache if it did before; None if it cannot.

        A flag that it refuses is remembered, as in a start. Raises EngineMissing and EngineFailed.
        """
        words = plan.engine.engine.breakdown_words(plan.flags, context) if plan.engine else None
        if plan.engine is None or words is None:
            return None
        known = self._breakdowns.get(self._key(model, plan, words))
        if known is not None:
            return known
        engine, sees_gpus = engines.engine(plan.engine.name), self._sees_gpus
        try:
            known = engine.report_breakdown(plan.engine, words, sees_gpus=sees_gpus)
        except EngineFailed as error:
            refusal = refused(error.engine_lines, plan.flags, engine.log_style)
            flags = self._without(model, plan, refusal) if refusal else plan.flags
            other = engine.breakdown_words(flags, context)
            if other is None or other == words:
                raise
            known = engine.report_breakdown(plan.engine, other, sees_gpus=sees_gpus)
            self._breakdowns.put(self._key(model, plan, other), known)
        self._breakdowns.put(self._key(model, plan, words), known)
        return known

    def _without(self, model: Model, plan: EnginePlan, refusal: Refusal) -> tuple[Flag, ...]:
        """Return the flags for another try. If the model is registered, its starts have them from now on."""
        if model.added and self._is_here:
            try:
                RefusedFlags().remember(model.id, plan.title, refusal.subjects, refusal.output)
            except StorageFailed as error:
                _log.warning("%s: %s", model.id, error.message)
        return without_refused(plan.flags, model.id, dict.fromkeys(refusal.subjects, refusal.output))

    def _key(self, model: Model, plan: EnginePlan, asked: Sequence[str]) -> str:
        words = [word for word in asked if word != model.path]
        gpu = self.gpu(plan) if self._sees_gpus else ""
        return sha256("\0".join((identity(model.files), plan.title, *words, gpu)).encode()).hexdigest()

    @property
    def _sees_gpus(self) -> bool:
        gpus = self._machine.gpus
        return self._is_here and bool(gpus) and min(gpu.free_bytes for gpu in gpus) >= _ROOM_TO_ASK_BYTES

    def _corrected(self, reported: Breakdown, constants: Constants, formula: Estimate, predicted: _Predict) -> Estimate:
        """Apply the formulas again, corrected by the engine's report; fit and suggestions follow from them."""
        is_whole = reported.has_devices == bool(self._machine.gpus)
        corrected = correction(reported.decisive, formula.components, len(reported.rows))
        # Without its GPUs it lays out weights and buffers differently, but the context takes as much.
        weights_bytes = corrected.weights_bytes if is_whole else 0
        beside_bytes = weights_bytes + corrected.kv_bytes
        if is_whole:
            factor = constants.compute_factor * corrected.compute_factor
            constants = replace(constants, compute_factor=factor, compute_error=0.0, compute_error_bytes=MIB)
        found = predicted(_with_overhead(constants, beside_bytes, len(self._machine.gpus)))
        parts = found.components
        parts = replace(
            parts,
            weights_bytes=parts.weights_bytes + weights_bytes,
            kv_bytes=parts.kv_bytes + corrected.kv_bytes,
            overhead_bytes=parts.overhead_bytes - beside_bytes,
        )
        return replace(found, components=parts, tier=Tier.T2 if is_whole else found.tier)

    def _start_of(self, model: Model, plan: EnginePlan) -> StartRecord | None:
        """Return the last completely measured start of the same model and command on this machine."""
        if not self._starts or not plan.title:
            return None
        same = identity(model.files), plan.title, starts_log.command_hash(plan.command)
        here = self.gpu(plan)
        for start in reversed(self._starts):
            is_same = (start.weights, start.engine, start.command) == same and is_among(start.gpu, here)
            if is_same and "total_bytes" in start.measured:
                return start
        return None


def _planner(model: Model, plan: EnginePlan) -> Planner:
    """Return the engine that would serve the model, or the one that could if it were installed."""
    return plan.engine.engine if plan.engine else engines.for_format(model.facts.format)


def _residue_bytes(start: StartRecord, found: Estimate) -> int:
    """Return the error of an estimate from a start, for the same context or another."""
    is_same = start.context == found.context
    return _RESIDUE_BYTES + (0 if is_same else found.components.compute_bytes // 4)


def projector_bytes(model: Model) -> int:
    return Path(model.projector).stat().st_size if model.projector else 0


def _with_overhead(constants: Constants, more_bytes: int, gpus: int) -> Constants:
    if gpus:
        return replace(constants, context_bytes=constants.context_bytes + more_bytes // gpus)
    return replace(constants, process_bytes=constants.process_bytes + more_bytes)

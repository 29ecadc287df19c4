"""Estimate the memory that a model needs on a machine, whether it fits, and what would fit instead."""

from __future__ import annotations

from collections.abc import Sequence

from mmd.machine import Machine
from mmd.plan import fit
from mmd.plan.constants import Constants
from mmd.plan.engine import Planner
from mmd.plan.estimate import Estimate, Tier
from mmd.plan.memory import MemoryModel
from mmd.plan.suggestions import Candidate, UnfitModel, suggestions
from mmd.registry.record import Facts


def memory_of(
    engine: Planner,
    facts: Facts,
    machine: Machine,
    words: Sequence[str] = (),
    *,
    projector_bytes: int = 0,
    on_gpu: bool = True,
    constants: Constants | None = None,
) -> MemoryModel:
    """Return an engine's formulas for a model under the `words` of its command line.

    Memory used by mmd's own models counts as free: the resident model is unloaded before another is loaded. `on_gpu`
    is false if the engine is a build for the CPU.
    """
    known, here = constants or engine.constants, fit.without_our_models(machine)
    return engine.memory(facts, here, words, projector_bytes=projector_bytes, on_gpu=on_gpu, constants=known)


def predict(
    engine: Planner,
    facts: Facts,
    machine: Machine,
    words: Sequence[str] = (),
    *,
    model_id: str,
    context: int | None = None,
    projector_bytes: int = 0,
    on_gpu: bool = True,
    constants: Constants | None = None,
    candidates: Sequence[Candidate] = (),
) -> Estimate:
    """Estimate the memory for `context` tokens; by default for the command line's context, or the largest that fits.

    Suggestions name `model_id`, and may name `candidates`, which are other quantisations.
    """
    known = constants or engine.constants
    memory = memory_of(engine, facts, machine, words, projector_bytes=projector_bytes, on_gpu=on_gpu, constants=known)
    least, most = fit.min_context(facts.context_length), memory.max_context(facts.context_length)
    tokens = context or memory.wanted_context or most or least
    placed = memory.placement(tokens)
    subject = UnfitModel(model_id, facts.weights_bytes, facts.context_length, tokens)
    return Estimate(
        needs_bytes=placed.components.total_bytes,
        has_bytes=memory.has_bytes(),
        error_bytes=memory.error_bytes(placed.components) + (0 if facts.layout else known.unknown_error_bytes),
        tier=Tier.T1 if facts.layout else Tier.T0,
        fits=placed.fits,
        components=placed.components,
        context=tokens,
        max_context=most,
        suggestions=() if memory.is_whole(tokens) else suggestions(memory, subject, candidates),
        on_gpu=placed.on_gpu,
        ram_bytes=placed.ram_bytes,
    )

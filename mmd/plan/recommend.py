"""Choose the file of a repository that suits a machine, for `mmd pull` and searches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from math import sqrt

from mmd.machine import Machine
from mmd.plan import fit
from mmd.plan.engine import Planner
from mmd.plan.predict import memory_of
from mmd.quantities import GIB
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Facts, Format, ModelType

# Enough for a conversation with a document in it.
USEFUL_CONTEXT_TOKENS = 8192

# Q8_0 has 8.5 bits per weight. No measurement that llama.cpp's authors published tells it apart from 16 bits.
_MAX_BITS = 8.75
# Q4_K_M has 4.85, and is what Ollama and LM Studio take: below it quality falls faster than size, and where the CPU
# computes, every byte is read again for each token.
_BITS_FOR_CPU = 5.0
_MIN_BITS = 3.4  # Q3_K_S has 3.5; with fewer bits, layers in RAM or a smaller model lose less
_FAST_ON_CPU_BYTES = GIB
# Q4_0 and similar types lose more than K-quants of the same size.
_LEGACY = re.compile(r"(?<![A-Z])Q[45]_[01](?![A-Z0-9])", re.IGNORECASE)
_LEGACY_FACTOR = 0.9
_BITS = re.compile(r"(?:(?<=[^A-Z])I?Q(\d)(?=[_.-])|(BF16|F16|F32)|MXFP(4)|NVFP(4))", re.IGNORECASE)

# Keys and values of a token if only the number of parameters is known: Llama-3-8B has 128 KiB in 16 bits, and they
# grow with the root: 395 for its 70B, which has 320, and 261 for Qwen3-32B, which has 256.
_KV_BYTES_OF_8B = 131_072


class RunsOn(StrEnum):
    """Where a model would run, best first."""

    GPU = "gpu"
    CPU = "cpu"  # the machine has no GPU
    PARTLY = "partly"  # layers in RAM: several times slower
    NOWHERE = "no"

    @property
    def rank(self) -> int:
        return list(RunsOn).index(self)


@dataclass(frozen=True)
class Assessed:
    """A model of the hub, assessed for one machine."""

    offer: HubModel
    needs_bytes: int  # at least, with a useful context
    has_bytes: int
    runs_on: RunsOn
    bits: float  # for each weight

    @cached_property
    def score(self) -> tuple[float, ...]:
        """Return the sort key; the model with the largest is chosen."""
        is_useful = self.bits >= _MIN_BITS
        match self.runs_on:
            case RunsOn.GPU:
                return (4 if is_useful else 2, *self._most_bits_up_to(_MAX_BITS))
            case RunsOn.CPU | RunsOn.PARTLY:
                small = self.offer.weights_bytes <= _FAST_ON_CPU_BYTES
                return (3 if is_useful else 1, *self._most_bits_up_to(_MAX_BITS if small else _BITS_FOR_CPU))
            case RunsOn.NOWHERE:
                return (0, 0, -self.needs_bytes)

    def _most_bits_up_to(self, most: float) -> tuple[float, float]:
        size_bytes = self.offer.weights_bytes
        if self.bits > most:
            return 0, -size_bytes
        return 1, size_bytes * (_LEGACY_FACTOR if _LEGACY.search(self.offer.file) else 1)


def assess(
    offers: Iterable[HubModel], base: Base, machine: Machine, engines: Mapping[Format, Planner]
) -> tuple[Assessed, ...]:
    """Return every offer whose format one of the `engines` serves, best first."""
    gpus = tuple(replace(gpu, free_bytes=fit.available_bytes(gpu)) for gpu in machine.gpus)
    here = replace(machine, gpus=gpus)
    found = (_assess(offer, base, here, engines[offer.format]) for offer in offers if offer.format in engines)
    return tuple(sorted(found, key=lambda one: one.score, reverse=True))


def reason(taken: Assessed, assessed: Iterable[Assessed]) -> str:
    """Say why this model was chosen, as the end of a sentence that begins with its name."""
    others = [one for one in assessed if one is not taken]
    if not others:
        return "the only model"
    match taken.runs_on:
        case RunsOn.GPU if taken.bits < _MIN_BITS:
            return "the largest that fits; a smaller model in more bits would answer better"
        case RunsOn.GPU if all(one.offer.weights_bytes < taken.offer.weights_bytes for one in others):
            return "the largest, and it fits into GPU memory"
        case RunsOn.GPU if any(one.runs_on is RunsOn.GPU and one.bits > taken.bits for one in others):
            return "as good as the larger ones, which fit too"
        case RunsOn.GPU:
            return "the largest that fits into GPU memory"
        case RunsOn.PARTLY:
            return "none fits into GPU memory; of the good ones, this has the least in RAM"
        case RunsOn.CPU:
            return "there is no GPU, and this one is fast enough on a CPU"
        case RunsOn.NOWHERE:
            return "the smallest, and still too large"


def _assess(offer: HubModel, base: Base, machine: Machine, engine: Planner) -> Assessed:
    parameters = base.parameters or round(offer.weights_bytes * 8 / _named_bits(offer.file))
    facts = Facts(
        format=offer.format,
        type=base.type,
        architecture="",
        quant=base.quant,
        weights_bytes=offer.weights_bytes,
        parameters=parameters,
        context_length=base.context_length,
        kv_bytes_per_token=_likely_kv_bytes(parameters, base.type),
        chat_template=False,
        name="",
    )
    memory = memory_of(engine, facts, machine, projector_bytes=offer.projector_bytes)
    context = min(USEFUL_CONTEXT_TOKENS, base.context_length or USEFUL_CONTEXT_TOKENS)
    if not _can_compute(engine, base.quant, machine):
        runs_on = RunsOn.NOWHERE
    elif memory.is_whole(context):
        runs_on = RunsOn.GPU if machine.gpus else RunsOn.CPU
    else:
        runs_on = RunsOn.PARTLY if memory.placement(context).fits else RunsOn.NOWHERE
    return Assessed(
        offer=offer,
        needs_bytes=memory.components(context).total_bytes,
        has_bytes=memory.has_bytes(),
        runs_on=runs_on,
        bits=offer.weights_bytes * 8 / max(1, parameters),
    )


def _can_compute(engine: Planner, quant: str, machine: Machine) -> bool:
    """True if the GPU is new enough for the engine; on a CPU the engine itself says what it cannot run."""
    if not machine.gpus:
        return True
    has = tuple(int(number) for number in machine.gpus[0].compute_capability.split("."))
    return has >= engine.min_capability(quant)


def _likely_kv_bytes(parameters: int, type: ModelType) -> int:
    if type in (ModelType.EMBEDDING, ModelType.RERANKER, ModelType.CLASSIFIER):
        return 0
    return round(_KV_BYTES_OF_8B * sqrt(parameters / 8e9))


def _named_bits(file: str) -> float:
    """Return the bits of each weight that a file name stands for: Q4_K_M has 4.85. 16 if it names none."""
    named = _BITS.findall(file)
    if not named:
        return 16.0
    digit, plain, mxfp, nvfp = named[-1]
    return float(plain.upper().removeprefix("B").removeprefix("F")) if plain else int(digit or mxfp or nvfp) + 0.7

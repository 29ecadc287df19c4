"""Suggest changes after which a model fits, least loss first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmd.plan import fit
from mmd.plan.estimate import Suggestion
from mmd.plan.memory import MemoryModel
from mmd.quantities import GIB

_ROUND_TOKENS = 1024
_MAX_CANDIDATES = 2  # of the same repository, and as many of others: the largest that fit


@dataclass(frozen=True, slots=True)
class Candidate:
    """Another quantisation of the same model, of which only the size is known."""

    name: str  # for people: "Q4_K_M", "Q4_K_M of unsloth/Qwen3-8B-GGUF"
    weights_bytes: int
    same_repository: bool
    command: str  # that gets it: "mmd pull REPO:FILE"


@dataclass(frozen=True, slots=True)
class UnfitModel:
    """The model that does not fit."""

    model_id: str
    weights_bytes: int  # of its files
    trained: int  # context that it was trained for, in tokens; 0 if unknown
    context: int  # wanted, in tokens


def suggestions(memory: MemoryModel, model: UnfitModel, candidates: Sequence[Candidate]) -> tuple[Suggestion, ...]:
    """Return changes after which all of the model is on the GPU. If there are none and it does not run, return those
    after which it runs.
    """
    found = tuple(_changes(memory, model, candidates, _is_whole))
    if found or _runs(memory, model.context):
        return found
    return tuple(_changes(memory, model, candidates, _runs))


_Holds = Callable[[MemoryModel, int], bool]


def _is_whole(memory: MemoryModel, context: int) -> bool:
    return memory.is_whole(context)


def _runs(memory: MemoryModel, context: int) -> bool:
    return memory.placement(context).fits


def _changes(
    memory: MemoryModel, model: UnfitModel, candidates: Sequence[Candidate], holds: _Holds
) -> Iterator[Suggestion]:
    shorter = _largest(memory, model, holds)
    if shorter:
        yield _suggestion(model, memory, shorter, (), "")
    yield from _8_bit_cache(memory, model, holds, shorter)
    yield from _candidates(memory, model, [one for one in candidates if one.same_repository], holds)
    in_ram = memory.with_experts_in_ram(model.context)
    if in_ram and holds(in_ram.memory, model.context):
        ram_gib = in_ram.memory.placement(model.context).ram_bytes / GIB
        change = f"{in_ram.change}, {ram_gib:.1f} GiB of it"
        yield _suggestion(model, in_ram.memory, model.context, in_ram.arguments, change)
    yield from _candidates(memory, model, [one for one in candidates if not one.same_repository], holds)


def _8_bit_cache(memory: MemoryModel, model: UnfitModel, holds: _Holds, shorter: int) -> Iterator[Suggestion]:
    """Suggest keys and values in 8 bits if the whole context then fits, or a longer one than with 16 bits."""
    smaller = memory.with_8_bit_cache()
    if smaller is None:
        return
    if holds(smaller.memory, model.context):
        yield _suggestion(model, smaller.memory, model.context, smaller.arguments, smaller.change)
        return
    more = _largest(smaller.memory, model, holds)
    if more > shorter:
        change = f"{smaller.change} and a context of {more} tokens"
        yield _suggestion(model, smaller.memory, more, smaller.arguments, change)


def _candidates(
    memory: MemoryModel, model: UnfitModel, candidates: Sequence[Candidate], holds: _Holds
) -> Iterator[Suggestion]:
    found = 0
    for one in sorted(candidates, key=lambda candidate: -candidate.weights_bytes):
        other = memory.with_weights(one.weights_bytes / max(1, model.weights_bytes))
        if found == _MAX_CANDIDATES or one.weights_bytes >= model.weights_bytes:
            continue
        if holds(other, model.context):
            found += 1
            yield Suggestion(one.name, other.components(model.context).total_bytes, one.command)


def _largest(memory: MemoryModel, model: UnfitModel, holds: _Holds) -> int:
    """Return the largest context that fits below the wanted one, in round numbers; 0 if none is useful."""
    found = fit.largest_context(model.context, lambda context: holds(memory, context))
    if found >= model.context:
        return 0
    return max(found // _ROUND_TOKENS * _ROUND_TOKENS, min(found, fit.min_context(model.trained)))


def _suggestion(
    model: UnfitModel, memory: MemoryModel, context: int, arguments: tuple[str, ...], change: str
) -> Suggestion:
    lines = [f"arguments = {_toml(arguments)}"] if arguments else []
    lines += [f"context = {context}"] if context != model.context else []
    editor = f'${{EDITOR:-nano}} ~/.config/mmd/mmd.toml   # [models."{model.model_id}"] {" and ".join(lines)}'
    needs_bytes = memory.components(context).total_bytes
    return Suggestion(change or f"a context of {context} tokens", needs_bytes, editor)


def _toml(words: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{word}"' for word in words)
    return f"[{quoted}]"

"""What would fit where a model does not, the change that loses least first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmd.plan import fit
from mmd.plan.estimate import Suggestion
from mmd.plan.memory import Memory
from mmd.quantities import GIB

_ROUND_TOKENS = 1024
_MOST_CANDIDATES = 2  # of a kind: the largest that fit


@dataclass(frozen=True, slots=True)
class Candidate:
    """Another quantisation of the same model, known by its size alone."""

    name: str  # for people: "Q4_K_M", "Q4_K_M of unsloth/Qwen3-8B-GGUF"
    weights_bytes: int
    same_repository: bool
    command: str  # that gets it: "mmd pull REPO:FILE"


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that does not fit."""

    model_id: str
    weights_bytes: int  # of its files
    trained: int  # tokens; 0 where that is not known
    context: int  # tokens that it is to hold


def suggestions(memory: Memory, subject: Subject, candidates: Sequence[Candidate]) -> tuple[Suggestion, ...]:
    """Changes after which all of it is where it should be; where it does not even run and there are none, those after
    which it does.
    """
    found = tuple(_changes(memory, subject, candidates, _is_whole))
    if found or _runs(memory, subject.context):
        return found
    return tuple(_changes(memory, subject, candidates, _runs))


_Holds = Callable[[Memory, int], bool]


def _is_whole(memory: Memory, context: int) -> bool:
    return memory.is_whole(context)


def _runs(memory: Memory, context: int) -> bool:
    return memory.placement(context).fits


def _changes(memory: Memory, subject: Subject, candidates: Sequence[Candidate], holds: _Holds) -> Iterator[Suggestion]:
    shorter = _largest(memory, subject, holds)
    if shorter:
        yield _suggestion(subject, memory, shorter, (), "")
    yield from _smaller_numbers(memory, subject, holds, shorter)
    yield from _candidates(memory, subject, [one for one in candidates if one.same_repository], holds)
    in_ram = memory.with_experts_in_ram(subject.context)
    if in_ram and holds(in_ram.memory, subject.context):
        ram_gib = in_ram.memory.placement(subject.context).ram_bytes / GIB
        change = f"{in_ram.change}, {ram_gib:.1f} GiB of it"
        yield _suggestion(subject, in_ram.memory, subject.context, in_ram.arguments, change)
    yield from _candidates(memory, subject, [one for one in candidates if not one.same_repository], holds)


def _smaller_numbers(memory: Memory, subject: Subject, holds: _Holds, shorter: int) -> Iterator[Suggestion]:
    """With all of the context, or with more of it than there would be without."""
    smaller = memory.with_smaller_numbers()
    if smaller is None:
        return
    if holds(smaller.memory, subject.context):
        yield _suggestion(subject, smaller.memory, subject.context, smaller.arguments, smaller.change)
        return
    more = _largest(smaller.memory, subject, holds)
    if more > shorter:
        change = f"{smaller.change} and a context of {more} tokens"
        yield _suggestion(subject, smaller.memory, more, smaller.arguments, change)


def _candidates(
    memory: Memory, subject: Subject, candidates: Sequence[Candidate], holds: _Holds
) -> Iterator[Suggestion]:
    found = 0
    for one in sorted(candidates, key=lambda candidate: -candidate.weights_bytes):
        other = memory.with_weights(one.weights_bytes / max(1, subject.weights_bytes))
        if found == _MOST_CANDIDATES or one.weights_bytes >= subject.weights_bytes:
            continue
        if holds(other, subject.context):
            found += 1
            yield Suggestion(one.name, other.components(subject.context).total_bytes, one.command)


def _largest(memory: Memory, subject: Subject, holds: _Holds) -> int:
    """The largest context below the wanted one, in round numbers; 0 where none is of use."""
    found = fit.largest_context(subject.context, lambda context: holds(memory, context))
    if found >= subject.context:
        return 0
    return max(found // _ROUND_TOKENS * _ROUND_TOKENS, min(found, fit.least_context(subject.trained)))


def _suggestion(subject: Subject, memory: Memory, context: int, arguments: tuple[str, ...], change: str) -> Suggestion:
    lines = [f"arguments = {_toml(arguments)}"] if arguments else []
    lines += [f"context = {context}"] if context != subject.context else []
    editor = f'${{EDITOR:-nano}} ~/.config/mmd/mmd.toml   # [models."{subject.model_id}"] {" and ".join(lines)}'
    needs_bytes = memory.components(context).total_bytes
    return Suggestion(change or f"a context of {context} tokens", needs_bytes, editor)


def _toml(words: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{word}"' for word in words)
    return f"[{quoted}]"

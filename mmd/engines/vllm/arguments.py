"""Arguments that a user has laid down for vLLM: as they are, but for those that its versions have dropped.

Guides go on naming them for years, and one of them is enough for vLLM not to start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmd.plan.engine import Installed
from mmd.plan.launch import Flag

_Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Dropped:
    """A flag that vLLM once took, and what its values are said with today, if with anything."""

    meaning: str
    instead: Callable[[_Words], _Words] = lambda _values: ()


def _structured_outputs(values: _Words) -> _Words:
    return ("--structured-outputs-config", _json({"backend": values[0]})) if values else ()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


_POOLING = ("--runner", "pooling")
_IN_CONFIG = _Dropped("dropped in 0.11.1: --hf-overrides says what to change in the model's config.json")
_PARTIAL_PREFILLS = _Dropped("dropped in 0.27: long prompts are divided without it")
_DROPPED = {
    "--num-scheduler-steps": _Dropped("dropped in 0.10.2: asynchronous scheduling does it, on since 0.14"),
    "--swap-space": _Dropped("dropped in 0.18: --kv-offloading-size keeps keys and values in RAM"),
    "--disable-log-requests": _Dropped("dropped in 0.17: requests are not logged unless asked for"),
    "--guided-decoding-backend": _Dropped("dropped in 0.11 for --structured-outputs-config", _structured_outputs),
    "--max-seq-len-to-capture": _Dropped("dropped in 0.11: graphs are captured by batch size, not by length"),
    "--override-pooler-config": _Dropped(
        "dropped in 0.12 for --pooler-config", lambda values: ("--pooler-config", *values)
    ),
    "--disable-mm-preprocessor-cache": _Dropped(
        "now --mm-processor-cache-gb 0", lambda _values: ("--mm-processor-cache-gb", "0")
    ),
    "--device": _Dropped("dropped: the build and the machine say which device it is"),
    "--use-v2-block-manager": _Dropped("dropped: there is only one block manager by now"),
    "--enable-prompt-adapter": _Dropped("dropped in 0.10.2: prompt adapters are no more"),
    "--multi-step-stream-outputs": _Dropped("dropped in 0.10.2, with the steps"),
    "--preemption-mode": _Dropped("dropped in 0.11: there is only recomputation by now"),
    "--disable-async-output-proc": _Dropped("dropped in 0.11 with the engine that it was for"),
    "--scheduler-delay-factor": _Dropped("dropped in 0.11 with the scheduler that it was for"),
    "--num-lookahead-slots": _Dropped("dropped in 0.12: --speculative-config implies them"),
    "--cuda-graph-sizes": _Dropped("dropped in 0.13: --compilation-config has cudagraph_capture_sizes"),
    "--disable-frontend-multiprocessing": _Dropped("dropped after 0.18: server and engine are two processes"),
    "--rope-scaling": _IN_CONFIG,
    "--rope-theta": _IN_CONFIG,
    "--max-num-partial-prefills": _PARTIAL_PREFILLS,
    "--max-long-partial-prefills": _PARTIAL_PREFILLS,
    "--calculate-kv-scales": _Dropped("dropped in 0.28: the model's files say them"),
}
# What --task said is said by the runner, where the model does not say it itself.
_TASKS = {
    "generate": (),
    "auto": (),
    "embed": _POOLING,
    "embedding": _POOLING,
    "score": _POOLING,
    "reward": _POOLING,
    "classify": _POOLING,
}

_OPTION = re.compile("--?[a-zA-Z]")  # and not a number below zero
_LIMITS = "--limit-mm-per-prompt"
_LIMIT = re.compile(r"(\w+)=(\d+)")


def translated(arguments: tuple[str, ...], engine: Installed) -> tuple[Flag, ...]:
    """One flag for all that stays as it was laid down, and one for each that had to change, with the reason."""
    kept: list[str] = []
    changed: list[Flag] = []
    for words in _grouped(arguments):
        name, equals, value = words[0].partition("=")
        name, values = name.replace("_", "-"), (value, *words[1:]) if equals else words[1:]
        if (change := _changed(name, values, engine)) is None:
            kept += words
        else:
            changed.append(change)
    laid_down = (Flag(tuple(kept), kept[0], "laid down in mmd.toml", required=True),) if kept else ()
    return (*laid_down, *changed)


def _changed(name: str, values: _Words, engine: Installed) -> Flag | None:
    if name == _LIMITS and (limits := _old_limits(values)):
        return Flag((name, _json(limits)), name, "laid down in mmd.toml, and said in JSON since 0.10", required=True)
    if name in engine.flags:
        return None
    if name == "--task" and values and values[0] in _TASKS:
        instead = _TASKS[values[0]]
        reason = f"laid down in mmd.toml as --task {values[0]}, which was dropped in 0.13"
        return Flag(instead, name, reason, required=True)
    if (dropped := _DROPPED.get(name)) is None:
        return None
    instead = dropped.instead(values)
    words = instead if instead and instead[0] in engine.flags else ()
    return Flag(words, name, f"laid down in mmd.toml: {dropped.meaning}", required=True)


def _old_limits(values: _Words) -> dict[str, int]:
    """What `image=2,video=1` says; empty where it is written otherwise."""
    matches = [_LIMIT.fullmatch(part) for value in values for part in value.split(",")]
    return {match[1]: int(match[2]) for match in matches if match} if all(matches) else {}


def _grouped(arguments: _Words) -> Iterator[_Words]:
    """An option with the values that follow it."""
    group: list[str] = []
    for word in arguments:
        if group and _OPTION.match(word):
            yield tuple(group)
            group = []
        group.append(word)
    if group:
        yield tuple(group)

"""The user's arguments for vLLM, with flags that its versions have dropped translated.

Guides name dropped flags for years, and vLLM does not start with a single one of them.
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
    """A flag that vLLM once accepted, and the words that replace it today, if any."""

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
    "--num-scheduler-steps": _Dropped("dropped in 0.10.2: asynchronous scheduling replaces it, on since 0.14"),
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
    "--use-v2-block-manager": _Dropped("dropped: there is only one block manager"),
    "--enable-prompt-adapter": _Dropped("dropped in 0.10.2: prompt adapters were removed"),
    "--multi-step-stream-outputs": _Dropped("dropped in 0.10.2, with the steps"),
    "--preemption-mode": _Dropped("dropped in 0.11: recomputation is the only mode"),
    "--disable-async-output-proc": _Dropped("dropped in 0.11 with the engine that it was for"),
    "--scheduler-delay-factor": _Dropped("dropped in 0.11 with the scheduler that it was for"),
    "--num-lookahead-slots": _Dropped("dropped in 0.12: --speculative-config implies them"),
    "--cuda-graph-sizes": _Dropped("dropped in 0.13: --compilation-config has cudagraph_capture_sizes"),
    "--disable-frontend-multiprocessing": _Dropped("dropped after 0.18: server and engine are two processes"),
    "--rope-scaling": _IN_CONFIG,
    "--rope-theta": _IN_CONFIG,
    "--max-num-partial-prefills": _PARTIAL_PREFILLS,
    "--max-long-partial-prefills": _PARTIAL_PREFILLS,
    "--calculate-kv-scales": _Dropped("dropped in 0.28: the model's files contain them"),
}
# What replaces a value of --task: the runner, unless vLLM derives it from the model.
_TASKS = {
    "generate": (),
    "auto": (),
    "embed": _POOLING,
    "embedding": _POOLING,
    "score": _POOLING,
    "reward": _POOLING,
    "classify": _POOLING,
}

_OPTION = re.compile("--?[a-zA-Z]")  # and not a negative number
_LIMITS = "--limit-mm-per-prompt"
_LIMIT = re.compile(r"(\w+)=(\d+)")


def translated(arguments: tuple[str, ...], engine: Installed) -> tuple[Flag, ...]:
    """Return one flag for the arguments that stay as they are, and one for each that had to change, with the reason."""
    kept: list[str] = []
    changed: list[Flag] = []
    for words in _grouped(arguments):
        name, equals, value = words[0].partition("=")
        name, values = name.replace("_", "-"), (value, *words[1:]) if equals else words[1:]
        if (change := _changed(name, values, engine)) is None:
            kept += words
        else:
            changed.append(change)
    unchanged = (Flag(tuple(kept), kept[0], "set in mmd.toml", required=True),) if kept else ()
    return (*unchanged, *changed)


def _changed(name: str, values: _Words, engine: Installed) -> Flag | None:
    if name == _LIMITS and (limits := _old_limits(values)):
        return Flag((name, _json(limits)), name, "set in mmd.toml, and written in JSON since 0.10", required=True)
    if name in engine.flags:
        return None
    if name == "--task" and values and values[0] in _TASKS:
        instead = _TASKS[values[0]]
        reason = f"set in mmd.toml as --task {values[0]}, which was dropped in 0.13"
        return Flag(instead, name, reason, required=True)
    if (dropped := _DROPPED.get(name)) is None:
        return None
    instead = dropped.instead(values)
    words = instead if instead and instead[0] in engine.flags else ()
    return Flag(words, name, f"set in mmd.toml: {dropped.meaning}", required=True)


def _old_limits(values: _Words) -> dict[str, int]:
    """Parse `image=2,video=1`; return {} for another notation."""
    matches = [_LIMIT.fullmatch(part) for value in values for part in value.split(",")]
    return {match[1]: int(match[2]) for match in matches if match} if all(matches) else {}


def _grouped(arguments: _Words) -> Iterator[_Words]:
    """Yield each option with the values that follow it."""
    group: list[str] = []
    for word in arguments:
        if group and _OPTION.match(word):
            yield tuple(group)
            group = []
        group.append(word)
    if group:
        yield tuple(group)

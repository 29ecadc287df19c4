"""Arguments that a user has laid down for vLLM: as they are, but for those that its versions have dropped.

Guides go on naming them for years, and one of them is enough for vLLM not to start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmd.plan.launch import Flag, Installed


@dataclass(frozen=True, slots=True)
class _Dropped:
    """A flag that vLLM once took, and what is said instead today, if anything."""

    meaning: str
    instead: tuple[str, ...] = ()


_POOLING = ("--runner", "pooling")
_DROPPED = {
    "--num-scheduler-steps": _Dropped("dropped in 0.10.2: asynchronous scheduling does it, on since 0.14"),
    "--swap-space": _Dropped("dropped in 0.18: --kv-offloading-size keeps keys and values in RAM"),
    "--disable-log-requests": _Dropped("dropped in 0.17: requests are not logged unless asked for"),
    "--guided-decoding-backend": _Dropped("dropped in 0.11: structured outputs choose their backend by themselves"),
    "--max-seq-len-to-capture": _Dropped("dropped in 0.11: graphs are captured by batch size, not by length"),
    "--override-pooler-config": _Dropped("dropped in 0.12: --pooler-config takes its place"),
    "--disable-mm-preprocessor-cache": _Dropped("now --mm-processor-cache-gb 0", ("--mm-processor-cache-gb", "0")),
    "--device": _Dropped("dropped: the build and the machine say which device it is"),
    "--use-v2-block-manager": _Dropped("dropped: there is only one block manager by now"),
    "--enable-prompt-adapter": _Dropped("dropped in 0.10.2: prompt adapters are no more"),
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


def translated(arguments: tuple[str, ...], engine: Installed) -> tuple[Flag, ...]:
    """One flag for all that stays as it was laid down, and one for each that had to change, with the reason."""
    kept: list[str] = []
    changed: list[Flag] = []
    for words in _grouped(arguments):
        name, equals, value = words[0].partition("=")
        name, values = name.replace("_", "-"), (value, *words[1:]) if equals else words[1:]
        if name in engine.flags or (change := _changed(name, values)) is None:
            kept += words
        else:
            changed.append(change)
    laid_down = (Flag(tuple(kept), kept[0], "laid down in mmd.toml", kept=True),) if kept else ()
    return (*laid_down, *changed)


def _changed(name: str, values: tuple[str, ...]) -> Flag | None:
    if name == "--task" and values and values[0] in _TASKS:
        instead = _TASKS[values[0]]
        reason = f"laid down in mmd.toml as --task {values[0]}, which was dropped in 0.13"
        return Flag(instead, name, reason, kept=True)
    if (dropped := _DROPPED.get(name)) is None:
        return None
    return Flag(dropped.instead, name, f"laid down in mmd.toml: {dropped.meaning}", kept=True)


def _grouped(arguments: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """An option with the values that follow it."""
    group: list[str] = []
    for word in arguments:
        if group and _OPTION.match(word):
            yield tuple(group)
            group = []
        group.append(word)
    if group:
        yield tuple(group)

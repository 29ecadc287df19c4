"""The options of llama-server's command line that determine its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmd.engines.llama.kv_cache import CACHE_TYPES, LlamaCache

# Options with a number, and the fields that they set.
_NUMBERS: Mapping[str, str] = {
    **dict.fromkeys(("-c", "--ctx-size"), "context"),
    **dict.fromkeys(("-np", "--parallel"), "slots"),
    **dict.fromkeys(("-ub", "--ubatch-size"), "batch_tokens"),
    **dict.fromkeys(("-b", "--batch-size"), "prompt_tokens"),  # of one step, in one or more batches
    **dict.fromkeys(("-ncmoe", "--n-cpu-moe"), "cpu_expert_layers"),
}
_MAX_DIGITS = 10
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("-ctk", "--cache-type-k"), "key_type"),
    **dict.fromkeys(("-ctv", "--cache-type-v"), "value_type"),
}
_SWITCHES: Mapping[str, tuple[str, int | bool]] = {
    **dict.fromkeys(("-cmoe", "--cpu-moe"), ("cpu_expert_layers", 1 << 20)),
    **dict.fromkeys(("-kvu", "--kv-unified"), ("unified", True)),
    **dict.fromkeys(("-no-kvu", "--no-kv-unified"), ("unified", False)),
    "--swa-full": ("full_windows", True),
    "--repack": ("repacks", True),
    **dict.fromkeys(("-nr", "--no-repack"), ("repacks", False)),
}


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """The values, with llama-server's defaults."""

    cache: LlamaCache  # of 0 tokens if the engine takes what fits
    cpu_expert_layers: int  # the number of first layers with their routed experts in RAM
    repacks: bool = True  # weights in RAM are laid out for the CPU


def llama_options(words: Sequence[str]) -> LlamaOptions:
    """Parse a command line; of several values for an option the last counts.

    An option whose value cannot be parsed keeps its default: the engine will refuse it.
    """
    found: dict[str, Any] = {}
    for word, after in pairwise((*words, "")):
        if word in _NUMBERS and after.isdecimal() and len(after) <= _MAX_DIGITS:
            found[_NUMBERS[word]] = int(after)
        elif word in _TYPES and after in CACHE_TYPES:
            found[_TYPES[word]] = after
        elif word in _SWITCHES:
            field, value = _SWITCHES[word]
            found[field] = value
    if "slots" in found:  # a number of slots means a cache for each, unless --kv-unified is given
        found = {"unified": False, **found, "slots": max(1, found["slots"])}
    if prompt_tokens := found.pop("prompt_tokens", 0):
        found["batch_tokens"] = min(found.get("batch_tokens", LlamaCache(0).batch_tokens), prompt_tokens)
    cpu_expert_layers = found.pop("cpu_expert_layers", 0)
    repacks = found.pop("repacks", True)
    return LlamaOptions(LlamaCache(**{"context": 0, **found}), cpu_expert_layers, repacks)

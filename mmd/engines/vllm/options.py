"""The options of vLLM's command line that determine its memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_CACHE_TYPE = "--kv-cache-dtype"
_SMALL_TYPES = ("fp8", "int8")
_LENGTH = "--max-model-len"
_SEQUENCES = "--max-num-seqs"
_UTILIZATION = "--gpu-memory-utilization"
_SEVERAL_GPUS = ("-tp", "--tensor-parallel-size")  # mmd itself uses the long one only
_POOL = "--kv-cache-memory-bytes"

_SIZE = re.compile(r"(\d+)([KMGTkmgt]?)")
_UNITS = {
    "": 1,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """The values, None if the command line does not contain them."""

    context: int | None = None  # tokens
    sequences: int | None = None  # requests at a time
    utilization: float | None = None  # share of every GPU
    gpus: int | None = None
    pool_bytes: int | None = None  # for keys and values
    small_numbers: bool | None = None  # keys and values of 8 bits


def vllm_options(words: Sequence[str]) -> VllmOptions:
    """Parse a command line; of several values for an option the last counts.

    An option whose value cannot be parsed is None: the engine will refuse it.
    """
    given = dict(_options(words))
    cache_type = given.get(_CACHE_TYPE)
    several = next((given[name] for name in _SEVERAL_GPUS if name in given), "")
    return VllmOptions(
        context=_count(given.get(_LENGTH, "")),
        sequences=_count(given.get(_SEQUENCES, "")),
        utilization=_share(given.get(_UTILIZATION, "")),
        gpus=_count(several),
        pool_bytes=_size_bytes(given.get(_POOL, "")),
        small_numbers=None if cache_type is None else cache_type.startswith(_SMALL_TYPES),
    )


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values, in both notations; vLLM treats `_` and `-` in a name alike."""
    for word, after in pairwise((*words, "")):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield name.replace("_", "-"), value if equals else after


def _count(word: str) -> int | None:
    return int(word) if re.fullmatch(r"[1-9]\d{0,8}", word) else None


def _share(word: str) -> float | None:
    return float(word) if re.fullmatch(r"1(\.0*)?|0?\.\d+", word) else None


def _size_bytes(word: str) -> int | None:
    found = _SIZE.fullmatch(word)
    return int(found[1]) * _UNITS[found[2]] if found and len(found[1]) < 20 else None

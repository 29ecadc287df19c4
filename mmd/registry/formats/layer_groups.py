"""Layers that are alike, counted; and how many there may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile
from mmd.registry.layout import Layers

_F16_BYTES = 2
# No model has a thousand; without a limit a lie would make lists of any length here.
_MAX_LAYERS = 10_000


def group_layers(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    """Those that keep the same as one, in the order in which they first occur."""
    counts: Counter[Layers] = Counter()
    for one in layers:
        counts[replace(one, count=1)] += one.count
    return tuple(replace(one, count=count) for one, count in counts.items() if one != Layers(1))


def run_lengths(sizes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Sizes in a row that are equal, as how many and how large."""
    return tuple((len(list(run)), size_bytes) for size_bytes, run in groupby(sizes))


def bytes_per_token(groups: Iterable[Layers]) -> int:
    """What one more token costs at most, in 16 bits: windows count as if they were still growing."""
    return sum(
        layers.count * (layers.key_width + layers.value_width) * _F16_BYTES // layers.tokens_per_cell
        for layers in groups
    )


def plausible_layer_count(count: int, path: Path) -> int:
    """`count` layers, or BadModelFile."""
    if count > _MAX_LAYERS:
        raise BadModelFile(
            f"{path} claims to have {count:,} layers",
            hint=f"sha256sum {quote(str(path))}   # to compare; it wants to be downloaded again",
        )
    return count

"""Group equal layers, and limit how many a file may claim."""

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
# No model has a thousand layers. Without a limit, a false count would create lists of any length.
_MAX_LAYERS = 10_000


def group_layers(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    """Merge equal layers into one entry with a count, in order of first occurrence. Drop layers without cache."""
    counts: Counter[Layers] = Counter()
    for one in layers:
        counts[replace(one, count=1)] += one.count
    return tuple(replace(one, count=count) for one, count in counts.items() if one != Layers(1))


def run_lengths(sizes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return runs of equal sizes as (count, size)."""
    return tuple((len(list(run)), size_bytes) for size_bytes, run in groupby(sizes))


def bytes_per_token(groups: Iterable[Layers]) -> int:
    """Return the cache bytes of one more token in 16 bits. Windows count as if they were not full yet."""
    return sum(
        layers.count * (layers.key_width + layers.value_width) * _F16_BYTES // layers.tokens_per_cell
        for layers in groups
    )


def plausible_layer_count(count: int, path: Path) -> int:
    """Return `count`, or raise BadModelFile if it is not plausible."""
    if count > _MAX_LAYERS:
        raise BadModelFile(
            f"{path} claims {count:,} layers",
            hint=f"sha256sum {quote(str(path))}   # compare with the hub; download it again if it differs",
        )
    return count

"""Keys, values and recurrent states of the tokens read so far, as llama.cpp lays them out.

Facts: llama.cpp b11434 (`llama-kv-cache*.cpp`, `llama-memory-recurrent.cpp`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmd.plan.memory import CacheBytes
from mmd.registry.layout import Layers

_FLOAT32_BYTES = 4
_PAD_TOKENS = 256  # llama.cpp rounds every cache up to it

# The types of keys and values: numbers in a block, and bytes of a block.
CACHE_TYPES: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}


@dataclass(frozen=True, slots=True)
class LlamaCache:
    """The options of the caches, with llama-server's defaults; `context` is for all slots together."""

    context: int
    slots: int = 4
    unified: bool = True  # one cache that each slot may use all of
    batch_tokens: int = 512
    key_type: str = "f16"
    value_type: str = "f16"
    full_windows: bool = False  # windows are kept in full, so that a conversation can be continued from its middle

    @property
    def tokens(self) -> int:
        """Return the cells of one stream: of all slots together, or of each."""
        if self.unified:
            return padded(self.context)
        return padded(padded(self.context) // self.slots)

    @property
    def streams(self) -> int:
        return 1 if self.unified else self.slots

    def cells(self, layers: Layers) -> int:
        """Return the cells of one stream of these layers: a cell holds a token, or several compressed into one."""
        tokens = self.tokens
        if layers.window_tokens and not self.full_windows:
            windows = self.slots if self.unified and not layers.per_slot else 1
            return padded(min(tokens, layers.window_tokens * windows + self.batch_tokens))
        return tokens if layers.tokens_per_cell == 1 else padded(-(-tokens // layers.tokens_per_cell))


def padded(tokens: int) -> int:
    return -(-tokens // _PAD_TOKENS) * _PAD_TOKENS


def llama_cache_bytes(groups: Sequence[Layers], cache: LlamaCache) -> CacheBytes:
    """Return the bytes of all layers, exact for b11434; states are 32-bit floats, one set per slot."""
    kv_bytes = sum(
        layers.count
        * cache.cells(layers)
        * (cache.slots if layers.per_slot else cache.streams)
        * (_row_bytes(layers.key_width, cache.key_type) + _row_bytes(layers.value_width, cache.value_type))
        for layers in groups
    )
    numbers = sum(layers.count * (layers.convolution_numbers + layers.state_numbers) for layers in groups)
    return CacheBytes(kv_bytes, numbers * _FLOAT32_BYTES * cache.slots)


def _row_bytes(width: int, cache_type: str) -> int:
    block, block_bytes = CACHE_TYPES[cache_type]
    return -(-width // block) * block_bytes

"""What is kept of the tokens read so far: keys, values and recurrent states, as each engine lays them out.

Facts: llama.cpp b11434 (`llama-kv-cache*.cpp`, `llama-memory-recurrent.cpp`), vLLM 0.32 (`kv_cache_interface.py`,
`kv_cache_utils.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmd.registry.layout import Layers

_FLOAT32_BYTES = 4
_PAD_TOKENS = 256  # llama.cpp rounds every cache up to it
_VLLM_BLOCK_TOKENS = 16

# Of llama.cpp's types for keys and values: numbers in a block, and its bytes.
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
class Kept:
    """Bytes that grow with the context, and those that do not."""

    kv_bytes: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class LlamaCache:
    """What decides over llama.cpp's caches: llama-server's own defaults, and a context for all slots together."""

    context: int
    slots: int = 4
    unified: bool = True  # one cache, of which each slot may use all
    batch_tokens: int = 512
    key_type: str = "f16"
    value_type: str = "f16"
    full_windows: bool = False  # windows are kept in full, so that a conversation can be taken up in its middle

    @property
    def tokens(self) -> int:
        """Cells of one stream: of all slots together, or of each."""
        if self.unified:
            return padded(self.context)
        return padded(padded(self.context) // self.slots)

    @property
    def streams(self) -> int:
        return 1 if self.unified else self.slots

    def cells(self, layers: Layers) -> int:
        """Tokens, or what several are compressed into, that one stream of these layers has room for."""
        tokens = self.tokens
        if layers.window_tokens and not self.full_windows:
            windows = self.slots if self.unified and not layers.per_slot else 1
            return padded(min(tokens, layers.window_tokens * windows + self.batch_tokens))
        return tokens if layers.tokens_per_cell == 1 else padded(-(-tokens // layers.tokens_per_cell))


def padded(tokens: int) -> int:
    return -(-tokens // _PAD_TOKENS) * _PAD_TOKENS


def llama_kept(groups: Sequence[Layers], cache: LlamaCache) -> Kept:
    """Exact for b11434, over all layers; states are 32-bit floats, once a slot."""
    kv_bytes = sum(
        layers.count
        * cache.cells(layers)
        * (cache.slots if layers.per_slot else cache.streams)
        * (_row_bytes(layers.key_width, cache.key_type) + _row_bytes(layers.value_width, cache.value_type))
        for layers in groups
    )
    numbers = sum(layers.count * (layers.convolution_numbers + layers.state_numbers) for layers in groups)
    return Kept(kv_bytes, numbers * _FLOAT32_BYTES * cache.slots)


def _row_bytes(width: int, cache_type: str) -> int:
    block, block_bytes = CACHE_TYPES[cache_type]
    return -(-width // block) * block_bytes


def vllm_kept(groups: Sequence[Layers], context: int, *, number_bytes: int, sequences: int, in_flight: int) -> Kept:
    """What one conversation of `context` tokens takes of vLLM's pool, and the states of all `sequences`.

    `in_flight` tokens of a prompt are worked at beside what a window keeps. Where kinds of layers differ, they share
    the pool in groups of equally many, the last one filled up with layers that there are not.
    """
    page = max((_state_bytes(layers) for layers in groups), default=0)
    width = max((layers.key_width + layers.value_width for layers in groups), default=0)
    block_tokens = _VLLM_BLOCK_TOKENS
    if page and width:  # a block of tokens must be as large as a state
        per_block = width * number_bytes * _VLLM_BLOCK_TOKENS
        block_tokens *= -(-page // per_block)
        page = block_tokens * width * number_bytes
    kv_bytes = state_bytes = 0
    for layers in _filled_up(groups):
        tokens = _blocks(layers, context, in_flight, block_tokens) * block_tokens
        kv_bytes += layers.count * (layers.key_width + layers.value_width) * number_bytes * tokens
        state_bytes += layers.count * (page or _state_bytes(layers)) * sequences if _state_bytes(layers) else 0
    return Kept(kv_bytes, state_bytes)


def _blocks(layers: Layers, context: int, in_flight: int, block_tokens: int) -> int:
    cells = -(-context // layers.tokens_per_cell)
    if layers.window_tokens:
        kept = min(layers.window_tokens - 1 + in_flight, cells)
        return -(-kept // block_tokens) + 1
    return -(-cells // block_tokens)


def _state_bytes(layers: Layers) -> int:
    """Convolutions have the weights' 16 bits, states have 32 in the models that say so, which are most."""
    return layers.convolution_numbers * 2 + layers.state_numbers * _FLOAT32_BYTES


def _filled_up(groups: Sequence[Layers]) -> list[Layers]:
    kinds: dict[tuple[bool, int], int] = {}
    for layers in groups:
        kinds[_kind(layers)] = kinds.get(_kind(layers), 0) + layers.count
    if len(kinds) < 2:
        return list(groups)
    least, most = min(kinds.values()), max(kinds.values())
    size = most if most < 1.5 * least else least
    return [
        replace(layers, count=-(-kinds[_kind(layers)] // size) * size * layers.count // kinds[_kind(layers)])
        for layers in groups
    ]


def _kind(layers: Layers) -> tuple[bool, int]:
    is_state = bool(layers.convolution_numbers or layers.state_numbers) and not layers.key_width
    return is_state, layers.window_tokens

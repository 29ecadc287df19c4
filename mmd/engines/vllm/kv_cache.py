"""Keys, values and recurrent states of the tokens read so far, as vLLM lays them out.

Facts: vLLM 0.32 (`kv_cache_interface.py`, `kv_cache_utils.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmd.plan.memory import CacheBytes
from mmd.registry.layout import Layers

_FLOAT32_BYTES = 4
_BLOCK_TOKENS = 16


def vllm_cache_bytes(
    groups: Sequence[Layers], context: int, *, number_bytes: int, sequences: int, in_flight: int
) -> CacheBytes:
    """Return what one conversation of `context` tokens takes of vLLM's pool, and the states of all `sequences`.

    A window keeps its tokens and `in_flight` tokens of a prompt. Different kinds of layers share the pool in groups of
    equal size, and the last group is padded with layers that do not exist.
    """
    page = max((_state_bytes(layers) for layers in groups), default=0)
    width = max((layers.key_width + layers.value_width for layers in groups), default=0)
    block_tokens = _BLOCK_TOKENS
    if page and width:  # a block of tokens must be as large as a state
        per_block = width * number_bytes * _BLOCK_TOKENS
        block_tokens *= -(-page // per_block)
        page = block_tokens * width * number_bytes
    kv_bytes = state_bytes = 0
    for layers in _filled_up(groups):
        tokens = _blocks(layers, context, in_flight, block_tokens) * block_tokens
        kv_bytes += layers.count * (layers.key_width + layers.value_width) * number_bytes * tokens
        state_bytes += layers.count * (page or _state_bytes(layers)) * sequences if _state_bytes(layers) else 0
    return CacheBytes(kv_bytes, state_bytes)


def _blocks(layers: Layers, context: int, in_flight: int, block_tokens: int) -> int:
    cells = -(-context // layers.tokens_per_cell)
    if layers.window_tokens:
        kept = min(layers.window_tokens - 1 + in_flight, cells)
        return -(-kept // block_tokens) + 1
    return -(-cells // block_tokens)


def _state_bytes(layers: Layers) -> int:
    """Return the bytes of a layer's states: 16 bits for convolutions, 32 for states, as in most models."""
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

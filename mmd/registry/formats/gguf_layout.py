"""Compute the layout of a GGUF model: where llama.cpp places its tensors.

Source: llama.cpp b11434, `llama-arch.cpp` (input, repeating and output tensors), `llama-model-loader.cpp`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mmd.registry.formats.ggml import AMX_BLOCK_BYTES
from mmd.registry.formats.gguf import GgufHeader, LongArray, Tensor
from mmd.registry.formats.gguf_layers import attention_size, gguf_layers, layer_count, widest
from mmd.registry.formats.gguf_type import is_encoder_architecture
from mmd.registry.formats.layer_groups import run_lengths
from mmd.registry.layout import Layout

_EMBEDDINGS = "token_embd.weight"
# Lookup tables: llama.cpp never puts them on the GPU.
_INPUT = frozenset({_EMBEDDINGS, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})
_OUTPUT = re.compile(
    r"(output|dec\.output|enc\.output|cls|dense_[23]|altup_proj|altup_unembd_proj)[._].*|\w+_norm\.\w+"
)
_REPEATING_NORMS = ("token_embd_norm.", "per_layer_proj_norm.")
_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch)?exps\.")  # tensors moved by --n-cpu-moe


def gguf_layout(headers: Sequence[GgufHeader]) -> Layout:
    """Return the layout from the headers of all parts."""
    first = headers[0]
    count = layer_count(first)
    tensors = [tensor for header in headers for tensor in header.tensors]
    parts: Counter[str] = Counter()
    experts: Counter[int] = Counter()
    amx_bytes = 0
    for tensor in tensors:
        part, layer = _place(tensor.name, count)
        if part in ("repeating", "output"):
            amx_bytes += _amx_extra_bytes(tensor)
        if part == "experts":
            experts[layer] += tensor.size_bytes
        else:
            parts[part] += tensor.size_bytes
    return Layout(
        input_bytes=parts["input"],
        repeating_bytes=parts["repeating"],
        expert_bytes=run_lengths(experts[layer] for layer in range(count)) if experts else (),
        output_bytes=parts["output"],
        copied_bytes=_copied_bytes(first.architecture, tensors),
        nextn_bytes=parts["nextn"],
        unloaded_bytes=0,
        float32_bytes=0,
        rotation_bytes=0,
        layer_count=count,
        hidden_size=_number(first, "embedding_length"),
        feed_forward_size=_feed_forward_size(first, tensors),
        experts_used=widest(first, "expert_used_count"),
        expert_size=widest(first, "expert_feed_forward_length") or widest(first, "feed_forward_length"),
        attention_heads=widest(first, "attention.head_count"),
        attention_size=attention_size(first),
        vocabulary_size=_vocabulary_size(first),
        caches=gguf_layers(first),
        embeddings_type=next((tensor.type.name for tensor in tensors if tensor.name == _EMBEDDINGS), ""),
        amx_bytes=amx_bytes,
    )


def _amx_extra_bytes(tensor: Tensor) -> int:
    if len(tensor.shape) != 2:
        return 0
    return tensor.elements // tensor.type.block * AMX_BLOCK_BYTES.get(tensor.type.name, 0)


def _place(name: str, count: int) -> tuple[str, int]:
    """Return the part of the layout that a tensor belongs to, and its layer (-1 outside of layers)."""
    within = _LAYER.fullmatch(name)
    if within:
        layer = int(within[1])
        if count and layer >= count:
            return "nextn", layer
        return ("experts" if _EXPERTS.match(within[2]) else "repeating"), layer
    if name in _INPUT:
        return "input", -1
    is_output = _OUTPUT.fullmatch(name) and not name.startswith(_REPEATING_NORMS)
    return ("output" if is_output else "repeating"), -1


def _copied_bytes(architecture: str, tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the embeddings that llama.cpp copies as output layer; 0 with an own one, and for encoders."""
    sizes = {tensor.name: tensor.size_bytes for tensor in tensors}
    if "output.weight" in sizes or is_encoder_architecture(architecture):
        return 0
    return sizes.get(_EMBEDDINGS, 0)


def _feed_forward_size(header: GgufHeader, tensors: Iterable[Tensor]) -> int:
    """Return the values a feed-forward layer computes per token: gate, up and product if gated, else one."""
    is_mixture = bool(widest(header, "expert_used_count"))
    if is_mixture and not _number(header, "leading_dense_block_count"):
        return 0  # the file gives a dense width that no layer uses
    width = widest(header, "feed_forward_length")
    shapes = {tensor.name: tensor.shape for tensor in tensors if tensor.name.startswith("blk.0.ffn_")}
    is_gated = "blk.0.ffn_gate.weight" in shapes or shapes.get("blk.0.ffn_up.weight", ())[1:] != (width,)
    return 3 * width if is_gated else width


def _vocabulary_size(header: GgufHeader) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, LongArray):
        return tokens.length
    return len(tokens) if isinstance(tokens, tuple) else _number(header, "vocab_size")


def _number(header: GgufHeader, key: str) -> int:
    return header.integer(f"{header.architecture}.{key}") or 0

"""Compute the layout of a safetensors model: which tensors vLLM loads, and the cache size of its layers."""

from __future__ import annotations

import re
from collections import Counter

from mmd.registry.formats.config_layers import config_layers, head_width, layer_count
from mmd.registry.formats.folder import Config
from mmd.registry.formats.folder_type import is_encoder
from mmd.registry.formats.layer_groups import run_lengths
from mmd.registry.formats.quant import quantization_of
from mmd.registry.formats.safetensors import Weights
from mmd.registry.layout import Layout

_LAYER = re.compile(r"(?:model\.|language_model\.)*layers\.(\d+)\.")
_EXPERTS = re.compile(r".*\.experts\..+")
_EMBEDDINGS = re.compile(r"(.+\.)?(embed_tokens|wte|word_embeddings)\.weight")
_HEAD = re.compile(r"(.+\.)?lm_head\..+")
_NUMBER_BYTES = 2


def folder_layout(config: Config, weights: Weights) -> Layout:
    text = config.language()
    count = layer_count(text)
    parts: Counter[str] = Counter()
    experts: Counter[int] = Counter()
    for name, size_bytes in weights.sizes.items():
        part, layer = _place(name, config, count)
        parts[part] += size_bytes
        if part == "experts":
            experts[layer] += size_bytes
    feed_forward = text.widest("intermediate_size", "ffn_dim", "n_inner") or 0
    is_float32 = weights.dominant_dtype == "F32" and not quantization_of(config).data
    return Layout(
        input_bytes=parts["input"],
        repeating_bytes=parts["repeating"],
        expert_bytes=run_lengths(experts[layer] for layer in range(count)) if experts else (),
        output_bytes=parts["output"],
        copied_bytes=0,  # vLLM uses one tensor for embedding and output
        nextn_bytes=parts["nextn"],
        unloaded_bytes=parts["unloaded"],
        float32_bytes=4 * weights.elements.get("F32", 0) if is_float32 else 0,
        rotation_bytes=0 if is_encoder(config) else _rotation_bytes(text),
        layer_count=count,
        hidden_size=text.integer("hidden_size", "n_embd", "d_model") or 0,
        feed_forward_size=3 * feed_forward,
        experts_used=text.widest("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts") or 0,
        expert_size=text.widest("moe_intermediate_size", "expert_ffn_hidden_size") or feed_forward,
        attention_heads=text.integer("num_attention_heads", "n_head", "n_heads") or 0,
        attention_size=0,  # used only by llama.cpp's formulas
        vocabulary_size=text.integer("vocab_size") or 0,
        caches=() if is_encoder(config) else config_layers(config),
    )


def _rotation_bytes(text: Config) -> int:
    """Return the bytes of the rotary tables: a sine and a cosine per position and pair of rotated dimensions."""
    rotation = text.section("rope_parameters") if isinstance(text.data.get("rope_parameters"), dict) else text
    share = rotation.data.get("partial_rotary_factor", text.data.get("partial_rotary_factor", 1.0))
    is_share = isinstance(share, int | float) and 0 <= share <= 1  # Python's JSON also yields Infinity and NaN
    width = text.integer("qk_rope_head_dim") or int(head_width(text) * (share if is_share else 1))
    tables = 2 if text.data.get("rope_local_base_freq") else 1  # a second table for sliding-window layers
    return tables * _NUMBER_BYTES * width * (text.integer("max_position_embeddings") or 0)


def _place(name: str, config: Config, count: int) -> tuple[str, int]:
    """Return the part of the layout that a tensor belongs to, and its layer (-1 outside of layers)."""
    found = _LAYER.match(name)
    layer = int(found[1]) if found else -1
    if name.startswith("mtp.") or (count and layer >= count):
        return "nextn", layer
    if found:
        return ("experts" if _EXPERTS.fullmatch(name) else "repeating"), layer
    if _HEAD.fullmatch(name):
        is_tied = config.flag("tie_word_embeddings") or config.language().flag("tie_word_embeddings")
        return ("unloaded" if is_tied else "output"), -1
    return ("input" if _EMBEDDINGS.fullmatch(name) else "repeating"), -1

"""The anatomy of a folder of safetensors: which of its tensors vLLM loads, and what its layers keep."""

from __future__ import annotations

import re
from collections import Counter

from mmd.registry.anatomy import Anatomy
from mmd.registry.config_layers import config_layers, layer_count
from mmd.registry.folder import Config
from mmd.registry.folder_type import is_encoder
from mmd.registry.quant import quantization_of
from mmd.registry.safetensors import Weights

_LAYER = re.compile(r"(?:model\.|language_model\.)*layers\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(.+\.)?(embed_tokens|wte|word_embeddings)\.weight")
_HEAD = re.compile(r"(.+\.)?lm_head\..+")


def folder_anatomy(config: Config, weights: Weights) -> Anatomy:
    text = config.language()
    parts: Counter[str] = Counter()
    for name, size_bytes in weights.sizes.items():
        parts[_place(name, config, layer_count(text))] += size_bytes
    is_float32 = weights.dominant_dtype == "F32" and not quantization_of(config).data
    return Anatomy(
        input_bytes=parts["input"],
        repeating_bytes=parts["repeating"],
        expert_bytes=(),
        output_bytes=parts["output"],
        copied_bytes=0,  # vLLM looks up and multiplies by the same tensor
        nextn_bytes=parts["nextn"],
        unloaded_bytes=parts["unloaded"],
        float32_bytes=4 * weights.elements.get("F32", 0) if is_float32 else 0,
        layer_count=layer_count(text),
        hidden_size=text.integer("hidden_size", "n_embd", "d_model") or 0,
        feed_forward_size=text.integer("intermediate_size", "ffn_dim", "n_inner") or 0,
        experts_used=text.integer("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts") or 0,
        expert_size=text.integer("moe_intermediate_size", "expert_ffn_hidden_size") or 0,
        attention_heads=text.integer("num_attention_heads", "n_head", "n_heads") or 0,
        query_size=0,  # of use only to formulas of llama.cpp
        vocabulary_size=text.integer("vocab_size") or 0,
        caches=() if is_encoder(config) else config_layers(config),
    )


def _place(name: str, config: Config, count: int) -> str:
    layer = _LAYER.match(name)
    if name.startswith("mtp.") or (layer and count and int(layer[1]) >= count):
        return "nextn"
    if _HEAD.fullmatch(name):
        is_tied = config.flag("tie_word_embeddings") or config.language().flag("tie_word_embeddings")
        return "unloaded" if is_tied else "output"
    return "input" if _EMBEDDINGS.fullmatch(name) else "repeating"

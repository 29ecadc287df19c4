"""How many bytes of keys and values one token costs, at f16, over all layers that cache it.

Sliding-window layers are counted as if they cached every token, so for models that have them this is
an upper bound: what they save depends on context and slots, which the planner knows and a file does not.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile
from mmd.registry.folder import Config
from mmd.registry.gguf import GgufHeader

_F16_BYTES = 2
# No model has a thousand; without a limit a lie would make lists of any length here.
_MAX_LAYERS = 10_000

# Architectures whose every layer keeps a state of fixed size instead of a cache that grows.
_RECURRENT_GGUF = re.compile(r"mamba\d*|rwkv\w*|arwkv\d*")
_RECURRENT_CONFIG = re.compile(r"mamba\d*|falcon_mamba|rwkv\w*")
_FULL_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
_GEMMA3N_CACHING_LAYERS = 20

_MLA_CONFIG = re.compile(r"deepseek_v\d+|kimi_\w+|glm_moe_dsa|glm4_moe_lite|longcat_flash\w*")


def gguf_kv_bytes_per_token(header: GgufHeader) -> int:
    """From the metadata of a GGUF, as llama.cpp's llama-kv-cache.cpp allocates (b11434)."""
    layers = _gguf_caching_layers(header)
    rank = _number(header, "attention.kv_lora_rank")
    if rank:  # multi-head latent attention: one compressed key per token, no values
        return len(layers) * (rank + (_number(header, "rope.dimension_count") or 0)) * _F16_BYTES
    total = _gguf_layers(header)
    heads = _per_layer(header, "attention.head_count", total)
    kv_heads = _per_layer(header, "attention.head_count_kv", total) or heads
    if not kv_heads:
        return 0
    widths = _gguf_head_widths(header, heads, total)
    return _F16_BYTES * sum(kv_heads[layer] * widths[layer] for layer in layers)


def _gguf_caching_layers(header: GgufHeader) -> list[int]:
    architecture = header.architecture
    total = _gguf_layers(header)
    # Layers that only predict further tokens have a cache of their own, and only where that is used.
    count = (
        total - (_number(header, "nextn_predict_layers") or 0) - (_number(header, "attention.shared_kv_layers") or 0)
    )
    if _RECURRENT_GGUF.fullmatch(architecture):
        return []
    if architecture == "gemma3n":
        count = min(count, _GEMMA3N_CACHING_LAYERS)
    recurrent = header.metadata.get(f"{architecture}.attention.recurrent_layers")
    if isinstance(recurrent, tuple):
        return [layer for layer in range(count) if not (layer < len(recurrent) and recurrent[layer])]
    interval = _number(header, "full_attention_interval") or _FULL_ATTENTION_INTERVAL.get(architecture, 1)
    return [layer for layer in range(count) if (layer + 1) % interval == 0]


def _gguf_layers(header: GgufHeader) -> int:
    return _believable(_number(header, "block_count") or 0, header.path)


def _believable(layers: int, path: Path) -> int:
    if layers > _MAX_LAYERS:
        raise BadModelFile(
            f"{path} claims to have {layers:,} layers",
            hint=f"sha256sum {quote(str(path))}   # to compare; it wants to be downloaded again",
        )
    return layers


def _gguf_head_widths(header: GgufHeader, heads: tuple[int, ...], total: int) -> list[int]:
    """Key plus value width of one head, per layer."""
    usual = (_number(header, "embedding_length") or 0) // max(1, max(heads, default=1))
    key, value = _number(header, "attention.key_length"), _number(header, "attention.value_length")
    full = (usual if key is None else key) + (usual if value is None else value)
    windowed_key = _number(header, "attention.key_length_swa")
    windowed_value = _number(header, "attention.value_length_swa")
    pattern = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if windowed_key is None or windowed_value is None or not isinstance(pattern, tuple):
        return [full] * total
    windowed = [layer < len(pattern) and bool(pattern[layer]) for layer in range(total)]
    return [windowed_key + windowed_value if is_windowed else full for is_windowed in windowed]


def _number(header: GgufHeader, key: str) -> int | None:
    return header.integer(f"{header.architecture}.{key}")


def _per_layer(header: GgufHeader, key: str, layers: int) -> tuple[int, ...]:
    return header.integers(f"{header.architecture}.{key}", layers) or ()


def config_kv_bytes_per_token(config: Config) -> int:
    """From a config.json, as vLLM's model_arch_config_convertor.py reads it (0.32)."""
    text = config.language()
    rank = text.integer("kv_lora_rank")
    layers = _config_caching_layers(text)
    if rank and _MLA_CONFIG.fullmatch(text.text("model_type")):
        return len(layers) * (rank + (text.integer("qk_rope_head_dim") or 0)) * _F16_BYTES
    width = _config_head_width(text)
    return _F16_BYTES * 2 * width * sum(_config_kv_heads(text, layer) for layer in layers)


def _config_caching_layers(text: Config) -> list[int]:
    count = _believable(text.integer("num_hidden_layers", "num_layers", "n_layer") or 0, text.path)
    if _RECURRENT_CONFIG.fullmatch(text.text("model_type")):
        return []
    hybrid = text.text("hybrid_override_pattern")  # Nemotron-H: M is Mamba, * attention, - a plain MLP
    if hybrid:
        return [layer for layer, kind in enumerate(hybrid) if kind == "*"]
    kinds = text.texts("layer_types") or text.texts("layers_block_type")
    if kinds:
        return [layer for layer, kind in enumerate(kinds) if "attention" in kind and kind != "linear_attention"]
    period, offset = text.integer("attn_layer_period"), text.integer("attn_layer_offset") or 0  # Jamba
    if period:
        return [layer for layer in range(count) if layer % period == offset]
    interval = text.integer("full_attention_interval") or 1
    return [layer for layer in range(count) if (layer + 1) % interval == 0]


def _config_head_width(text: Config) -> int:
    width = text.integer("head_dim", "hidden_size_per_head", "attention_head_dim")
    if width is not None:
        return width
    hidden = text.integer("hidden_size", "n_embd", "d_model") or 0
    return hidden // max(1, text.integer("num_attention_heads", "n_head", "n_heads") or 1)


def _config_kv_heads(text: Config, layer: int) -> int:
    blocks = text.data.get("block_configs")  # Nemotron-NAS: every layer has its own attention, or none
    if isinstance(blocks, list) and layer < len(blocks) and isinstance(blocks[layer], dict):
        attention = Config(text.path, blocks[layer]).section("attention")
        group = attention.integer("n_heads_in_group")
        return 0 if not group else (text.integer("num_attention_heads") or 0) // group
    if text.flag("multi_query") and not text.flag("new_decoder_architecture"):  # Falcon
        return 1
    heads = text.integer("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num")
    if heads is None:
        heads = text.section("attn_config").integer("kv_n_heads")  # DBRX
    if heads is None:
        heads = text.integer("num_attention_heads", "n_head", "n_heads")
    return heads or 0

"""Size of the KV cache and recurrent state per layer of a safetensors model, as vLLM allocates them.

Source: vLLM 0.32, `model_arch_config_convertor.py`, `mamba_utils.py`.
"""

from __future__ import annotations

import re

from mmd.registry.formats.folder import Config
from mmd.registry.formats.layer_groups import group_layers, plausible_layer_count
from mmd.registry.layout import Layers

# Architectures whose every layer keeps a state of fixed size instead of a cache that grows.
_RECURRENT = re.compile(r"mamba\d*|falcon_mamba|rwkv\w*")
_LATENT = re.compile(
    r"axk1|deepseek_v\d+|dots3_note|glm5_next(_text)?|glm_moe_dsa|glm4_moe_lite|kimi_\w+|longcat_flash\w*"
    r"|pangu_ultra_moe|bailing_hybrid|hy_v4"
)
_FULL, _SLIDING, _LINEAR, _BOTH, _OTHER = "full", "sliding", "linear", "both", "other"
# Keys that list the layers with full attention; all other layers are recurrent.
_ATTENTION_INDICES = ("attn_layer_indices", "full_attn_idxs")


def config_layers(config: Config) -> tuple[Layers, ...]:
    """Return groups of equal layers of the language model; empty for a model without cache and state."""
    text = config.language()
    kinds = _kinds(text)
    shared = text.integer("num_kv_shared_layers") or 0  # the last layers reuse the cache of earlier ones
    caching = len(kinds) - shared
    state = _state(text) if _LINEAR in kinds or _BOTH in kinds else Layers(1)
    width = head_width(text)
    own: list[Layers] = []
    for layer, kind in enumerate(kinds):
        if kind in (_LINEAR, _BOTH):
            own.append(state)
        if kind in (_FULL, _SLIDING, _BOTH) and layer < caching:
            own.append(_attention(text, layer, kind, width))
    return group_layers(own * (2 if _is_longcat(text) else 1))  # LongCat has two attention blocks per layer


def layer_count(text: Config) -> int:
    count = text.integer("num_layers") if _is_longcat(text) else None
    return plausible_layer_count(
        count or text.integer("num_hidden_layers", "num_layers", "n_layer", "n_layers") or 0, text.path
    )


def _is_longcat(text: Config) -> bool:
    return text.text("model_type").startswith("longcat_flash")


def _kinds(text: Config) -> list[str]:
    """Return the kind of each layer."""
    count = layer_count(text)
    if _RECURRENT.fullmatch(text.text("model_type")):
        return [_LINEAR] * count
    if text.text("model_type") == "falcon_h1":
        return [_BOTH] * count
    pattern = text.text("hybrid_override_pattern")  # Nemotron-H: M is Mamba, * attention, - a plain MLP, E experts
    if pattern:
        plausible_layer_count(len(pattern), text.path)
        return [{"M": _LINEAR, "*": _FULL}.get(letter, _OTHER) for letter in pattern]
    named = text.texts("layer_types") or text.texts("layers_block_type")
    if named:
        return [_named_kind(name) for name in named[:count]]
    for key in _ATTENTION_INDICES:
        indices = text.data.get(key)
        if isinstance(indices, list) and indices:
            return [_FULL if layer in indices else _LINEAR for layer in range(count)]
    period, offset = text.integer("attn_layer_period"), text.integer("attn_layer_offset") or 0  # Jamba
    if period:
        return [_FULL if layer % period == offset else _LINEAR for layer in range(count)]
    interval = text.integer("full_attention_interval") or 1
    if interval > 1:
        return [_FULL if (layer + 1) % interval == 0 else _LINEAR for layer in range(count)]
    return [_SLIDING if _slides(text, layer) else _FULL for layer in range(count)]


def _named_kind(name: str) -> str:
    match name:
        case "sliding_attention" | "chunked_attention":
            return _SLIDING
        case "linear_attention" | "mamba" | "mamba2" | "conv" | "recurrent":
            return _LINEAR
        case "hybrid":
            return _BOTH
        case _:
            return _FULL if "attention" in name else _OTHER


def _slides(text: Config, layer: int) -> bool:
    """Tell whether a layer has a sliding window, for configurations without a list of layer types."""
    if not text.integer("sliding_window") or text.data.get("use_sliding_window") is False:
        return False
    if text.text("model_type").startswith("gemma2"):
        return layer % 2 == 0
    period = text.integer("sliding_window_pattern", "_sliding_window_pattern")
    if period:
        return (layer + 1) % period != 0
    return not text.flag("use_sliding_window") or layer >= (text.integer("max_window_layers") or 0)


def _attention(text: Config, layer: int, kind: str, width: int) -> Layers:
    window = 0 if kind != _SLIDING else text.integer("sliding_window", "attention_chunk_size") or 0
    rank = text.integer("kv_lora_rank")
    if rank and _LATENT.fullmatch(text.text("model_type")):
        return Layers(1, key_width=rank + (text.integer("qk_rope_head_dim") or 0), window_tokens=window)
    heads = _kv_heads(text, layer)
    if kind == _FULL:  # Gemma 4's full-attention layers have other heads
        heads = text.integer("num_global_key_value_heads") or heads
        width = text.integer("global_head_dim") or width
    values = text.integer("v_head_dim") if text.text("model_type").startswith("mimo") else None
    return Layers(1, heads * width, heads * (width if values is None else values), window)


def head_width(text: Config) -> int:
    width = text.integer("head_dim", "hidden_size_per_head", "attention_head_dim")
    if width:
        return width
    if text.integer("kv_lora_rank") and (
        nope := text.integer("qk_nope_head_dim")
    ):  # latent attention, unfolded: MiniCPM3
        return nope + (text.integer("qk_rope_head_dim") or 0)
    hidden = text.integer("hidden_size", "n_embd", "d_model") or 0
    return hidden // max(1, text.integer("num_attention_heads", "n_head", "n_heads") or 1)


def _kv_heads(text: Config, layer: int) -> int:
    blocks = text.data.get("block_configs")  # Nemotron-NAS: attention differs per layer and may be absent
    if isinstance(blocks, list) and layer < len(blocks) and isinstance(blocks[layer], dict):
        attention = Config(text.path, blocks[layer]).section("attention")
        group = attention.integer("n_heads_in_group")
        return 0 if not group else (text.integer("num_attention_heads") or 0) // group
    if text.flag("multi_query") and not text.flag("new_decoder_architecture"):  # Falcon
        return 1
    heads = text.integer(
        "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups"
    )
    if heads is None:
        heads = text.section("attn_config").integer("kv_n_heads")  # DBRX
    if heads is None:
        heads = text.integer("num_attention_heads", "n_head", "n_heads")
    return heads or 0


def _state(text: Config) -> Layers:
    """Return the state of one recurrent layer for one sequence."""
    if (key_heads := text.integer("linear_num_key_heads")) is not None:  # gated delta net
        value_heads, key_width = text.integer("linear_num_value_heads") or 0, text.integer("linear_key_head_dim") or 0
        value_width, kernel = text.integer("linear_value_head_dim") or 0, text.integer("linear_conv_kernel_dim") or 1
        channels = 2 * key_heads * key_width + value_heads * value_width
        return _recurrent((kernel - 1) * channels, value_heads * value_width * key_width)
    if kept := text.integer("conv_L_cache"):  # LFM2
        return _recurrent((kept - 1) * (text.integer("conv_dim", "hidden_size") or 0), 0)
    linear = text.section("linear_attn_config")  # Kimi
    if head := linear.integer("head_dim"):
        inner = (linear.integer("num_heads") or 0) * head
        return _recurrent(3 * ((linear.integer("short_conv_kernel_size") or 4) - 1) * inner, head * inner)
    return _mamba(text)


def _mamba(text: Config) -> Layers:
    kernel = text.integer("mamba_d_conv", "conv_kernel", "mamba_conv_kernel") or 4
    state = text.integer("mamba_d_state", "ssm_state_size", "state_size") or 0
    inner = _mamba_width(text)
    groups = text.integer("mamba_n_groups", "mamba_ngroups", "n_groups") or 0
    return _recurrent((kernel - 1) * (inner + 2 * groups * state), inner * state)


def _mamba_width(text: Config) -> int:
    heads, head = (
        text.integer("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"),
        text.integer("mamba_d_head", "mamba_headdim", "mamba_head_dim"),
    )
    if heads and head:
        return heads * head
    given = text.integer("mamba_d_ssm", "mamba_intermediate_size")
    if given is None and text.text("model_type").startswith(("mamba", "falcon_mamba")):
        given = text.integer("intermediate_size")
    return given or (text.integer("mamba_expand", "expand") or 2) * (text.integer("hidden_size") or 0)


def _recurrent(convolution_numbers: int, state_numbers: int) -> Layers:
    return Layers(1, convolution_numbers=convolution_numbers, state_numbers=state_numbers)

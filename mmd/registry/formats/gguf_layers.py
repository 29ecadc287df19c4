"""Size of the KV cache and recurrent state per layer of a GGUF model, as llama.cpp allocates them.

Source: llama.cpp b11434, `llama_model::create_memory`, `load_arch_hparams` of every architecture, `llama-hparams.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmd.registry.formats.gguf import GgufHeader
from mmd.registry.formats.gguf_windows import windows
from mmd.registry.formats.layer_groups import group_layers, plausible_layer_count
from mmd.registry.layout import Layers

# Encoders read a text in one pass, diffusion models recompute the whole response: neither has a cache.
_KEEP_NOTHING = frozenset(
    {"bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert"}
    | {"gemma-embedding", "t5encoder", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1", "clef"}
)
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_FULL_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_GEMMA3N_CACHING_LAYERS = 20

# Sparse attention keeps an index of its keys, this many key widths per layer, on all layers or on listed ones.
_INDEX_ROWS = {"glm-dsa": 1, "deepseek32": 1, "hy_v4": 1, "dots3note": 1, "glm5-next": 3, "qwen4exp": 2}
_GLM_5_2_CONTEXT = 1 << 20

# DeepSeek V4 keeps a window per layer, and older tokens compressed in blocks of 4 or 128.
_FINE_TOKENS_PER_CELL = 4
_COARSE_TOKENS_PER_CELL = 128


def gguf_layers(header: GgufHeader) -> tuple[Layers, ...]:
    """Return groups of equal layers; empty for a model without cache and state."""
    model = _Model.of(header)
    if header.architecture in _KEEP_NOTHING or not model.count:
        return ()
    if header.architecture == "deepseek4":
        return group_layers(_compressed(model))
    own = [layers for layer in range(model.count) for layers in _of_layer(model, layer)]
    if header.architecture == "graniteswitch":  # one extra layer, which chooses the adapter
        own.append(Layers(1, key_width=model.key_width(0), value_width=model.value_width(0)))
    loops = model.number("num_loops") if header.architecture == "nanbeige" else 1
    plausible_layer_count(model.count * loops, header.path)
    return group_layers(own * max(1, loops))


def layer_count(header: GgufHeader) -> int:
    """Return the number of layers a token passes. Layers for multi-token prediction are not loaded by default."""
    total = plausible_layer_count(_number(header, "block_count") or 0, header.path)
    return max(0, total - (_number(header, "nextn_predict_layers") or 0))


def attention_size(header: GgufHeader) -> int:
    """Return the values per token in the widest layer's attention: queries and outputs, plus latent queries."""
    model = _Model.of(header)
    heads = max(model.heads, default=0)
    if model.latent_width:
        return heads * (2 * model.latent_width + model.number("attention.key_length_mla"))
    return max((2 * model.heads[layer] * model.key_width(layer) for layer in range(model.count)), default=0)


@dataclass(frozen=True, slots=True)
class _Model:
    """The metadata of one model, looked up by layer."""

    header: GgufHeader
    count: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    windows: tuple[int, ...]

    @classmethod
    def of(cls, header: GgufHeader) -> _Model:
        count = layer_count(header)
        heads = header.integers(f"{header.architecture}.attention.head_count", count) or (0,) * count
        kv_heads = header.integers(f"{header.architecture}.attention.head_count_kv", count) or heads
        return cls(header, count, heads, kv_heads, windows(header, count))

    def number(self, key: str) -> int:
        return _number(self.header, key) or 0

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """Return one flag per layer; None if the file has no such list."""
        value = self.header.metadata.get(f"{self.header.architecture}.{key}")
        if not isinstance(value, tuple):
            return None
        return tuple(bool(flag) for flag in value[: self.count]) + (False,) * (self.count - len(value))

    def key_width(self, layer: int) -> int:
        return self._head_width("key_length", layer)

    def value_width(self, layer: int) -> int:
        return self._head_width("value_length", layer)

    def _head_width(self, key: str, layer: int) -> int:
        windowed = _number(self.header, f"attention.{key}_swa") if self.windows[layer] else None
        width = windowed if windowed is not None else _number(self.header, f"attention.{key}")
        return self.number("embedding_length") // max(1, self.heads[0]) if width is None else width

    @property
    def latent_width(self) -> int:
        """Width of the single key of multi-head latent attention, which serves all heads and values; 0 without it.

        Early conversions, MiniCPM3 and PLM store it unfolded: their keys have another length.
        """
        rank, given = self.number("attention.kv_lora_rank"), _number(self.header, "attention.key_length")
        if not rank:
            return 0
        folded = rank + self.number("rope.dimension_count")
        is_unfolded = given not in (None, folded) and not self.number("attention.key_length_mla")
        return 0 if is_unfolded else folded


def _of_layer(model: _Model, layer: int) -> list[Layers]:
    """Return the cache, state and index of one layer."""
    is_hybrid = model.header.architecture == "falcon-h1"  # attention and state in every layer
    if _is_recurrent(model, layer) and not is_hybrid:
        return [_state(model)]
    attention = _attention(model, layer)
    if attention is None:
        return []
    kept = _with_state(attention, _state(model)) if is_hybrid else attention
    return [kept, *_index(model, layer)]


def _attention(model: _Model, layer: int) -> Layers | None:
    architecture = model.header.architecture
    shared = model.number("attention.shared_kv_layers")
    caching = min(model.count, _GEMMA3N_CACHING_LAYERS) if architecture == "gemma3n" else model.count - shared
    if not model.kv_heads[layer] or layer >= caching or (_is_nemotron(model) and _is_feed_forward(model, layer)):
        return None
    window = model.windows[layer]
    latent = model.latent_width
    if latent and window and model.number("attention.kv_lora_rank_swa"):
        latent = model.key_width(layer)
    if latent:
        return Layers(1, key_width=latent, window_tokens=window)
    heads = model.kv_heads[layer]
    return Layers(1, heads * model.key_width(layer), heads * model.value_width(layer), window)


def _is_recurrent(model: _Model, layer: int) -> bool:
    architecture = model.header.architecture
    if architecture in _RECURRENT or architecture == "falcon-h1":
        return True
    listed = model.flags("attention.recurrent_layers")
    if listed is not None:
        return listed[layer]
    if architecture in _FULL_ATTENTION_INTERVAL:
        interval = model.number("full_attention_interval") or _FULL_ATTENTION_INTERVAL[architecture]
        return (layer + 1) % interval != 0
    if model.kv_heads[layer] or (_is_nemotron(model) and _is_feed_forward(model, layer)):
        return False
    state = _state(model)
    return bool(state.convolution_numbers or state.state_numbers)


def _is_nemotron(model: _Model) -> bool:
    return model.header.architecture.startswith("nemotron_h")


def _is_feed_forward(model: _Model, layer: int) -> bool:
    widths = model.header.integers(f"{model.header.architecture}.feed_forward_length", model.count)
    return bool(widths and widths[layer])


def _state(model: _Model) -> Layers:
    """Return the state of one recurrent layer for one sequence (`n_embd_r` and `n_embd_s`)."""
    hidden, head = model.number("embedding_length"), model.number("wkv.head_size")
    if head:
        shifts = _number(model.header, "token_shift_count")
        return _recurrent((2 if shifts is None else shifts) * hidden, hidden * head)
    if kept := model.number("shortconv.l_cache"):
        return _recurrent(hidden * (kept - 1), 0)
    kernel = model.number("ssm.conv_kernel")
    if head := model.number("kda.head_dim"):
        inner = model.heads[0] * head
        return _recurrent(3 * (kernel - 1 if kernel else 3) * inner, head * inner)
    if model.header.architecture == "minimax-01":
        return _recurrent(0, model.key_width(0) ** 2 * model.heads[0])
    inner, state = model.number("ssm.inner_size"), model.number("ssm.state_size")
    return _recurrent(max(0, kernel - 1) * (inner + 2 * model.number("ssm.group_count") * state), inner * state)


def _recurrent(convolution_numbers: int, state_numbers: int) -> Layers:
    return Layers(1, convolution_numbers=convolution_numbers, state_numbers=state_numbers)


def _with_state(attention: Layers, state: Layers) -> Layers:
    return Layers(
        1,
        attention.key_width,
        attention.value_width,
        attention.window_tokens,
        convolution_numbers=state.convolution_numbers,
        state_numbers=state.state_numbers,
    )


def _index(model: _Model, layer: int) -> list[Layers]:
    architecture, width = model.header.architecture, model.number("attention.indexer.key_length")
    if not width or model.windows[layer]:
        return []
    if architecture == "minimax-m3":  # only sparse layers; values too
        is_sparse = layer >= model.number("leading_dense_block_count")
        return [Layers(1, key_width=width, value_width=model.value_width(layer))] if is_sparse else []
    if architecture not in _INDEX_ROWS or not _owns_index(model, layer):
        return []
    return [Layers(1, key_width=width * _INDEX_ROWS[architecture])]


def _owns_index(model: _Model, layer: int) -> bool:
    """True if the layer has its own index; other layers reuse the choice of an earlier one."""
    listed = model.flags("attention.indexer.types")
    if listed is not None:
        return listed[layer]
    if model.header.architecture == "glm-dsa" and model.number("context_length") >= _GLM_5_2_CONTEXT:
        return layer < 2 or (layer - 2) % 4 == 0
    return True


def _compressed(model: _Model) -> list[Layers]:
    """Return DeepSeek V4's caches: keys only, everything per sequence."""
    width, window = model.key_width(0), model.number("attention.sliding_window")
    index = model.number("attention.indexer.key_length")
    ratios = model.header.integers(f"{model.header.architecture}.attention.compress_ratios", model.count)
    kept: list[Layers] = []
    for ratio in ratios or ():
        kept.append(Layers(1, key_width=width, window_tokens=window, per_slot=True))
        if ratio == _FINE_TOKENS_PER_CELL:
            # Two states (keys and scores), each of two blocks of double width; the same for the index.
            state = 2 * (2 * ratio) * 2 * (width + index)
            kept.append(Layers(1, width + index, tokens_per_cell=ratio, per_slot=True, state_numbers=state))
        elif ratio == _COARSE_TOKENS_PER_CELL:
            kept.append(Layers(1, width, tokens_per_cell=ratio, per_slot=True, state_numbers=2 * ratio * width))
    return kept


def _number(header: GgufHeader, key: str) -> int | None:
    return header.integer(f"{header.architecture}.{key}")


def widest(header: GgufHeader, key: str) -> int:
    """Return the maximum of a value per layer, or the single value for all layers; 0 if absent."""
    value: object = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(value, tuple):
        return max(header.integers(f"{header.architecture}.{key}", len(value)) or (), default=0)
    return _number(header, key) or 0

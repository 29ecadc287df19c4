"""Cache sizes by architecture, from shortened headers and configurations of published models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmd.errors import BadModelFile
from mmd.registry.detect import examine
from mmd.registry.layout import Layers, Layout
from tests import well_known
from tests.tiny_models import sparse_gguf, tiny_safetensors


def gguf(tmp_path: Path, architecture: str, **keys: object) -> Layout:
    metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    path = sparse_gguf(tmp_path / "m.gguf", metadata={"general.architecture": architecture, **metadata})
    layout = examine(path).facts.layout
    assert layout is not None
    return layout


def gqa(count: int, heads: int, width: int, window: int = 0) -> Layers:
    return Layers(count, heads * width, heads * width, window)


def state(count: int, convolution: int, numbers: int) -> Layers:
    return Layers(count, convolution_numbers=convolution, state_numbers=numbers)


ATTENTION = {
    "embedding_length": 2048,
    "attention__head_count": 16,
    "attention__head_count_kv": 4,
    "attention__key_length": 128,
    "attention__value_length": 128,
}


@pytest.mark.parametrize(
    ("architecture", "layers", "keys", "windowed", "window"),
    [
        ("gemma2", 42, {}, 21, 4096),  # default if the file omits it
        ("gemma3", 26, {"attention__sliding_window": 512}, 22, 512),
        ("gemma3", 26, {}, 0, 0),
        ("gpt-oss", 24, {"attention__sliding_window": 128}, 12, 128),
        ("cohere2", 32, {"attention__sliding_window": 4096}, 24, 4096),
        ("cohere2", 32, {"attention__sliding_window": 4096, "attention__sliding_window_pattern": 2}, 16, 4096),
        ("olmo2", 32, {"attention__sliding_window": 4096}, 24, 4096),
        ("olmo2", 32, {}, 0, 0),
        ("exaone4", 64, {"attention__sliding_window": 4096}, 48, 4096),
        ("exaone4", 30, {"attention__sliding_window": 4096}, 0, 0),  # the 1.2B has no windows
        ("llama4", 48, {}, 36, 8192),  # chunks
        ("llama4", 48, {"attention__sliding_window": 0}, 0, 0),
        ("smallthinker", 32, {"attention__sliding_window": 4096}, 24, 4096),
        ("plamo3", 24, {"attention__sliding_window": 2048}, 21, 2048),
        # llama.cpp ignores these
        ("llama", 32, {"attention__sliding_window": 4096}, 0, 0),
        ("phi3", 32, {"attention__sliding_window": 2047}, 0, 0),
        ("qwen2", 28, {"attention__sliding_window": 32768}, 0, 0),
    ],
)
def test_windows(
    tmp_path: Path, architecture: str, layers: int, keys: dict[str, object], windowed: int, window: int
) -> None:
    caches = gguf(tmp_path, architecture, block_count=layers, **ATTENTION, **keys).caches
    counts = {group.window_tokens: group.count for group in caches}
    expected = {window: windowed, 0: layers - windowed} if windowed else {0: layers}
    assert counts == expected


def test_first_of_every_four_layers_is_full(tmp_path: Path) -> None:
    """Of three layers the last one has a window then, unlike with Gemma's pattern."""
    keys: dict[str, object] = {"block_count": 1, "attention__sliding_window": 4096, **ATTENTION}
    assert gguf(tmp_path, "cohere2moe", **keys).caches == (gqa(1, 4, 128),)
    assert gguf(tmp_path, "cohere2", **keys).caches == (gqa(1, 4, 128, 4096),)


def test_gemma4_has_other_heads_in_windows_and_shared_layers(tmp_path: Path) -> None:
    caches = gguf(
        tmp_path,
        "gemma4",
        block_count=6,
        embedding_length=2048,
        attention__head_count=16,
        attention__head_count_kv=[8, 8, 1, 8, 8, 1],
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
        attention__sliding_window=1024,
        attention__sliding_window_pattern=[True, True, False, True, True, False],
        attention__shared_kv_layers=2,
    ).caches
    assert caches == (gqa(3, 8, 256, 1024), gqa(1, 1, 512))


def test_gemma3n_caches_in_its_first_20_layers(tmp_path: Path) -> None:
    caches = gguf(tmp_path, "gemma3n", block_count=35, attention__sliding_window=512, **ATTENTION).caches
    assert sum(group.count for group in caches) == 20
    assert caches[1] == gqa(4, 4, 128)


MAMBA = {"ssm__conv_kernel": 4, "ssm__inner_size": 4096, "ssm__state_size": 128, "ssm__group_count": 1}


def test_granite_hybrid_layers_without_heads_are_recurrent(tmp_path: Path) -> None:
    keys = ATTENTION | MAMBA | {"attention__head_count_kv": [0, 0, 4, 0]}
    caches = gguf(tmp_path, "granitehybrid", block_count=4, **keys).caches
    assert caches == (state(3, 3 * (4096 + 2 * 128), 4096 * 128), gqa(1, 4, 128))


def test_nemotron_h_has_layers_without_cache(tmp_path: Path) -> None:
    keys = ATTENTION | MAMBA | {"attention__head_count_kv": [0, 0, 4], "feed_forward_length": [0, 12288, 0]}
    caches = gguf(tmp_path, "nemotron_h", block_count=3, **keys).caches
    assert caches == (state(1, 3 * (4096 + 2 * 128), 4096 * 128), gqa(1, 4, 128))


def test_falcon_h1_has_both_in_every_layer(tmp_path: Path) -> None:
    (layers,) = gguf(tmp_path, "falcon-h1", block_count=36, **ATTENTION, **MAMBA).caches
    assert layers == Layers(36, 512, 512, convolution_numbers=3 * (4096 + 256), state_numbers=4096 * 128)


def test_mamba_has_states_only(tmp_path: Path) -> None:
    caches = gguf(tmp_path, "mamba2", block_count=48, embedding_length=2048, **MAMBA).caches
    assert caches == (state(48, 3 * (4096 + 256), 4096 * 128),)


def test_rwkv_keeps_shifted_tokens_and_a_state(tmp_path: Path) -> None:
    caches = gguf(tmp_path, "rwkv7", block_count=24, embedding_length=2048, wkv__head_size=64).caches
    assert caches == (state(24, 2 * 2048, 2048 * 64),)


def test_lfm2_keeps_a_short_convolution(tmp_path: Path) -> None:
    keys = ATTENTION | {"attention__head_count_kv": [0, 0, 4], "shortconv__l_cache": 3}
    assert gguf(tmp_path, "lfm2", block_count=3, **keys).caches == (state(2, 2 * 2048, 0), gqa(1, 4, 128))


def test_kimi_linear_has_latent_attention_between_its_states(tmp_path: Path) -> None:
    caches = gguf(
        tmp_path,
        "kimi-linear",
        block_count=4,
        embedding_length=2304,
        attention__head_count=32,
        attention__head_count_kv=[0, 0, 0, 1],
        attention__kv_lora_rank=512,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
        rope__dimension_count=64,
        ssm__conv_kernel=4,
        kda__head_dim=128,
    ).caches
    assert caches == (state(3, 3 * 3 * 4096, 128 * 4096), Layers(1, 576))


def test_latent_attention_of_early_conversions(tmp_path: Path) -> None:
    keys = {"attention__kv_lora_rank": 512, "rope__dimension_count": 64, "block_count": 27}
    old = {"attention__head_count": 16, "attention__key_length": 192, "attention__value_length": 128}
    assert gguf(tmp_path, "deepseek2", **keys, **old).caches == (Layers(27, 16 * 192, 16 * 128),)
    new = {"attention__head_count": 16, "attention__head_count_kv": 1, "attention__key_length": 576}
    new |= {"attention__key_length_mla": 192, "attention__value_length_mla": 128}
    assert gguf(tmp_path, "deepseek2", **keys, **new).caches == (Layers(27, 576),)


def test_sparse_attention_indexes_every_layer_or_some(tmp_path: Path) -> None:
    keys: dict[str, object] = {
        "block_count": 79,
        "nextn_predict_layers": 1,
        "attention__head_count": 64,
        "attention__kv_lora_rank": 512,
        "rope__dimension_count": 64,
        "attention__indexer__key_length": 128,
    }
    assert gguf(tmp_path, "glm-dsa", context_length=202752, **keys).caches == (Layers(78, 576), Layers(78, 128))
    assert gguf(tmp_path, "glm-dsa", context_length=1 << 20, **keys).caches == (Layers(78, 576), Layers(21, 128))


def test_deepseek4_keeps_a_window_and_compressed_tokens(tmp_path: Path) -> None:
    caches = gguf(
        tmp_path,
        "deepseek4",
        block_count=3,
        attention__head_count=64,
        attention__key_length=512,
        attention__sliding_window=128,
        attention__indexer__key_length=128,
        attention__compress_ratios=[0, 4, 128],
    ).caches
    assert caches == (
        Layers(3, 512, window_tokens=128, per_slot=True),
        Layers(1, 640, tokens_per_cell=4, per_slot=True, state_numbers=2 * 8 * 2 * 640),
        Layers(1, 512, tokens_per_cell=128, per_slot=True, state_numbers=2 * 128 * 512),
    )


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert", "modern-bert", "eurobert", "gemma-embedding", "llada"])
def test_encoders_and_diffusion_models_have_no_cache(tmp_path: Path, architecture: str) -> None:
    assert gguf(tmp_path, architecture, block_count=12, **ATTENTION).caches == ()


# --- weights by where they lie


def test_tensors_are_assigned_to_parts(tmp_path: Path) -> None:
    layout = examine(well_known.QWEN3_30B_A3B.write(tmp_path / "m.gguf")).facts.layout
    assert layout is not None
    assert layout.expert_bytes == ((48, 128 * 3 * 2048 * 768 * 34 // 32),)
    assert layout.input_bytes == 2048 * 151936 * 34 // 32
    assert layout.output_bytes == 2048 * 151936 * 34 // 32 + 2048 * 4
    assert (layout.copied_bytes, layout.nextn_bytes, layout.vocabulary_size) == (0, 0, 151936)


def test_prediction_layers_are_counted_separately(tmp_path: Path) -> None:
    facts = examine(well_known.QWEN36_27B.write(tmp_path / "m.gguf")).facts
    assert facts.layout is not None
    assert facts.layout.layer_count == 64
    assert facts.layout.nextn_bytes > 5120 * 17408 * 3 * 4.5 / 8
    assert facts.layout.loaded_bytes + facts.layout.nextn_bytes == facts.weights_bytes


def test_experts_begin_after_dense_layers(tmp_path: Path) -> None:
    layout = examine(well_known.DEEPSEEK_V2_LITE.write(tmp_path / "m.gguf")).facts.layout
    assert layout is not None
    assert [layers for layers, _ in layout.expert_bytes] == [1, 26]
    assert layout.expert_bytes[0] == (1, 0)


# --- config.json


def folder(tmp_path: Path, **config: object) -> Layout:
    path = tiny_safetensors(tmp_path / "m", {"architectures": ["AForCausalLM"], **config})
    layout = examine(path).facts.layout
    assert layout is not None
    return layout


HEADS = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128}


@pytest.mark.parametrize(
    ("config", "windowed"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, 12),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 8}, 4),
        ({"model_type": "gemma2", "sliding_window": 4096}, 6),
        ({"model_type": "gemma3_text", "sliding_window": 4096, "sliding_window_pattern": 6}, 10),
        ({"model_type": "cohere2", "sliding_window": 4096, "sliding_window_pattern": 4}, 9),
        ({"sliding_window": 4096, "layer_types": ["sliding_attention", "full_attention"] * 6}, 6),
        ({"attention_chunk_size": 4096, "layer_types": (["chunked_attention"] * 3 + ["full_attention"]) * 3}, 9),
        ({"model_type": "llama"}, 0),
    ],
)
def test_windows_of_a_config(tmp_path: Path, config: dict[str, object], windowed: int) -> None:
    caches = folder(tmp_path, num_hidden_layers=12, **HEADS, **config).caches
    counts = {group.window_tokens: group.count for group in caches}
    assert counts.get(4096, 0) == windowed
    assert counts.get(0, 0) == 12 - windowed


def test_gemma4_config_full_attention_layers_have_other_heads(tmp_path: Path) -> None:
    caches = folder(
        tmp_path,
        num_hidden_layers=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        sliding_window=1024,
        num_global_key_value_heads=1,
        global_head_dim=512,
        num_kv_shared_layers=2,
        **HEADS,
    ).caches
    assert caches == (gqa(3, 4, 128, 1024), gqa(1, 1, 512))


def test_qwen3_next_config(tmp_path: Path) -> None:
    caches = folder(
        tmp_path,
        num_hidden_layers=48,
        full_attention_interval=4,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
        **HEADS,
    ).caches
    assert caches == (state(36, 3 * (2 * 2048 + 4096), 32 * 128 * 128), gqa(12, 4, 128))


def test_nemotron_h_config(tmp_path: Path) -> None:
    caches = folder(
        tmp_path,
        model_type="nemotron_h",
        hybrid_override_pattern="M-M*",
        num_hidden_layers=4,
        mamba_num_heads=64,
        mamba_head_dim=64,
        ssm_state_size=128,
        n_groups=8,
        conv_kernel=4,
        **HEADS,
    ).caches
    assert caches == (state(2, 3 * (4096 + 2 * 8 * 128), 4096 * 128), gqa(1, 4, 128))


def test_gemma3_config_without_head_counts(tmp_path: Path) -> None:
    """The 4B as published: without head counts, head width or window pattern."""
    left_out: dict[str, object] = {"hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    found = folder(
        tmp_path, model_type="gemma3", text_config={"model_type": "gemma3_text", "intermediate_size": 10240, **left_out}
    )
    assert found.caches == (gqa(29, 4, 256, 1024), gqa(5, 4, 256))
    assert (found.attention_heads, found.vocabulary_size) == (8, 262208)


def test_llava_config_names_only_its_base(tmp_path: Path) -> None:
    text = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}
    path = tiny_safetensors(tmp_path / "m", {"architectures": ["AForConditionalGeneration"], "text_config": text})
    facts = examine(path).facts
    assert facts.layout is not None
    assert facts.layout.caches == (gqa(32, 32, 128),)
    assert facts.context_length == 4096


def test_null_in_a_config_means_none(tmp_path: Path) -> None:
    """Mistral since 0.2 has no window; a missing key would give the window of version 0.1."""
    caches = folder(tmp_path, model_type="mistral", num_hidden_layers=32, sliding_window=None, **HEADS).caches
    assert caches == (gqa(32, 4, 128),)


def test_sizes_listed_per_layer(tmp_path: Path) -> None:
    """Gemma 3n lists 16384 for each of its 35 layers; Hunyuan lists its experts."""
    listed = {"intermediate_size": [8192, 16384], "moe_intermediate_size": [3072, 3072], "moe_topk": [8, 8]}
    found = folder(tmp_path, num_hidden_layers=2, **HEADS, **listed)
    assert (found.feed_forward_size, found.expert_size, found.experts_used) == (3 * 16384, 3072, 8)


def test_latent_attention_that_vllm_unfolds(tmp_path: Path) -> None:
    """MiniCPM3: 40 heads of 64 + 32 values, for keys and values."""
    keys = {"kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}
    found = folder(tmp_path, model_type="minicpm3", num_hidden_layers=62, hidden_size=2560,
                   num_attention_heads=40, num_key_value_heads=40, **keys)  # fmt: skip
    assert found.caches == (gqa(62, 40, 96),)


def test_other_keys_for_the_layer_count(tmp_path: Path) -> None:
    """DBRX and MPT have `n_layers`; each of LongCat's `num_layers` has two attention blocks."""
    dbrx = folder(tmp_path, model_type="dbrx", d_model=6144, n_heads=48, n_layers=40, attn_config={"kv_n_heads": 8})
    assert dbrx.caches == (gqa(40, 8, 128),)
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 64}
    longcat = folder(tmp_path / "l", model_type="longcat_flash", num_layers=28, num_hidden_layers=56, **latent)
    assert (longcat.layer_count, longcat.caches) == (28, (Layers(56, 576),))


def test_layers_with_attention_and_a_state(tmp_path: Path) -> None:
    """Zamba2, and Falcon-H1 as newer versions of transformers write it."""
    mamba = {"mamba_expand": 2, "mamba_d_state": 64, "mamba_ngroups": 1, "mamba_d_conv": 4}
    zamba = folder(
        tmp_path, model_type="zamba2", num_hidden_layers=3, layers_block_type=["mamba", "hybrid", "mamba"],
        hidden_size=2560, num_attention_heads=32, num_key_value_heads=32, attention_head_dim=160, **mamba,
    )  # fmt: skip
    assert zamba.caches == (state(3, 3 * (5120 + 2 * 64), 5120 * 64), gqa(1, 32, 160))
    falcon = folder(tmp_path / "falcon", num_hidden_layers=2, layer_types=["hybrid"] * 2, **HEADS, **mamba)
    assert falcon.caches == (state(2, 3 * (4096 + 2 * 64), 4096 * 64), gqa(2, 4, 128))


@pytest.mark.parametrize("key", ["attn_layer_indices", "full_attn_idxs"])
def test_listed_attention_layers(tmp_path: Path, key: str) -> None:
    caches = folder(tmp_path, num_hidden_layers=4, conv_L_cache=3, **{key: [1, 3]}, **HEADS).caches
    assert caches == (state(2, 2 * 2048, 0), gqa(2, 4, 128))


# --- lies


@pytest.mark.parametrize(
    "config",
    [
        {"partial_rotary_factor": float("inf")},
        {"partial_rotary_factor": float("nan")},
        {"partial_rotary_factor": -1e300},
        {"rope_parameters": {"partial_rotary_factor": "half"}},
    ],
)
def test_impossible_rotary_share(tmp_path: Path, config: dict[str, object]) -> None:
    found = folder(tmp_path, num_hidden_layers=2, max_position_embeddings=1024, **HEADS, **config)
    assert found.rotation_bytes == 2 * 128 * 1024


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10_001},
        {"hybrid_override_pattern": "M" * 10_001},
        {"intermediate_size": [1, -1]},
        {"intermediate_size": [1, "2"]},
        {"num_key_value_heads": -4},
        {"head_dim": "wide"},
    ],
)
def test_impossible_numbers_in_a_config(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(BadModelFile):
        folder(tmp_path, **{"num_hidden_layers": 2, **HEADS, **config})


@pytest.mark.parametrize(
    "keys",
    [
        {"block_count": 1 << 39},
        {"expert_used_count": [-8, -8]},
        {"feed_forward_length": [-1]},
        {"attention__head_count_kv": [4]},
        {"attention__head_count_kv": [4, -4]},
        {"attention__key_length": -1},
        {"attention__sliding_window_pattern": "LLLG", "attention__sliding_window": 512},
    ],
)
def test_impossible_numbers_in_a_gguf(tmp_path: Path, keys: dict[str, object]) -> None:
    with pytest.raises(BadModelFile):
        gguf(tmp_path, "gemma3", **{"block_count": 2, **ATTENTION, **keys})


def test_loops_count_for_one_architecture_only(tmp_path: Path) -> None:
    """A loop count in any other architecture used to fill the memory."""
    keys: dict[str, object] = {"block_count": 2, "num_loops": 1 << 39, **ATTENTION}
    assert gguf(tmp_path, "llama", **keys).caches == (gqa(2, 4, 128),)
    assert gguf(tmp_path, "nanbeige", **{**keys, "num_loops": 3}).caches == (gqa(6, 4, 128),)
    with pytest.raises(BadModelFile):
        gguf(tmp_path, "nanbeige", **keys)


def test_float32_weights_are_marked(tmp_path: Path) -> None:
    tensors = {"encoder.weight": ("F32", (16, 8)), "bias": ("F32", (8,))}
    path = tiny_safetensors(tmp_path / "m", {"architectures": ["BertModel"]}, tensors=tensors)
    layout = examine(path).facts.layout
    assert layout is not None
    assert layout.float32_bytes == 4 * (16 * 8 + 8)
    assert layout.caches == ()


def test_prediction_layers_of_a_folder(tmp_path: Path) -> None:
    tensors = {"model.layers.0.w": ("BF16", (8,)), "model.layers.1.w": ("BF16", (16,)), "mtp.w": ("BF16", (4,))}
    path = tiny_safetensors(
        tmp_path / "m", {"architectures": ["AForCausalLM"], "num_hidden_layers": 1}, tensors=tensors
    )
    layout = examine(path).facts.layout
    assert layout is not None
    assert (layout.nextn_bytes, layout.loaded_bytes) == (40, 16)

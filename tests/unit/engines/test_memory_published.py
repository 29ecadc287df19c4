"""The formulas against what engines have said they took: logs and reports that people have published, and our runs."""

from __future__ import annotations

import functools
import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmd.engines.llama.constants import LlamaConstants
from mmd.engines.llama.kv_cache import LlamaCache, llama_cache_bytes
from mmd.engines.llama.memory import LlamaMemory
from mmd.engines.llama.options import llama_options
from mmd.engines.vllm.constants import VllmConstants
from mmd.engines.vllm.footprint import VllmMemory
from mmd.engines.vllm.kv_cache import vllm_cache_bytes
from mmd.machine import load_machine
from mmd.plan.fit import layout_of
from mmd.registry.detect import examine
from mmd.registry.layout import Layers, Layout
from mmd.registry.record import Facts
from tests import well_known
from tests.tiny_models import sparse_gguf, tiny_safetensors

MIB, GIB = 1024**2, 1024**3
MACHINES = Path(__file__).parents[2] / "machines"
WITHOUT_GPU = load_machine(MACHINES / "cpu-only.json")
WITH_GPU = load_machine(MACHINES / "rtx4090-24g.json")


def gqa(layers: int, heads: int, width: int, **more: Any) -> Layers:
    return Layers(layers, heads * width, heads * width, **more)


# Gated delta net: (kernel - 1) · (inner + 2 · groups · state), and state · inner.
QWEN36_27B = (gqa(16, 4, 256), Layers(48, convolution_numbers=3 * (6144 + 4096), state_numbers=128 * 6144))
QWEN35_4B = (gqa(8, 4, 256), Layers(24, convolution_numbers=3 * (4096 + 4096), state_numbers=128 * 4096))
GEMMA4_12B = (gqa(40, 8, 256, window_tokens=1024), gqa(8, 1, 512))
Q8 = functools.partial(LlamaCache, key_type="q8_0", value_type="q8_0")


@pytest.mark.parametrize(
    ("groups", "cache", "kv_mib", "state_mib"),
    [
        # Qwen3-30B-A3B, a CUDA log
        ((gqa(48, 4, 128),), LlamaCache(65536), 6144.00, 0),
        # DeepSeek V3 at 16384: the keys of a build that kept values too (1098 + 976)
        ((Layers(61, 512 + 64),), LlamaCache(16384), 1098.00, 0),
        # Gemma-4-12B, four slots and one
        (GEMMA4_12B, Q8(8192), 833, 0),
        (GEMMA4_12B, Q8(8192, slots=1), 323, 0),
        # hybrids: a state for each slot
        (QWEN36_27B, LlamaCache(4096), 256.00, 598.50),
        (QWEN36_27B, LlamaCache(4096, slots=1), 256.00, 149.62),
        (QWEN35_4B, LlamaCache(4096, slots=1), 128.00, 50.25),
        (QWEN35_4B, LlamaCache(4096, slots=4), 128.00, 201.00),
        # the one layer of Qwen3.6-27B that predicts further tokens, where it is used
        ((gqa(1, 4, 256),), Q8(131072), 272.00, 0),
        # Qwen3-8B: 147,456 bytes a token
        ((gqa(36, 8, 128),), LlamaCache(40960), 5760.00, 0),
    ],
)
def test_llama_keeps_what_was_published(
    groups: tuple[Layers, ...], cache: LlamaCache, kv_mib: float, state_mib: float
) -> None:
    kept = llama_cache_bytes(groups, cache)
    assert kept.kv_bytes / MIB == pytest.approx(kv_mib, rel=0.0005)
    assert kept.state_bytes / MIB == pytest.approx(state_mib, rel=0.0005)


def test_layers_without_attention_keep_nothing(tmp_path: Path) -> None:
    """Nemotron-Ultra-253B: 64 of 162 layers have any, 1248 MiB for 4992 tokens."""
    metadata = {
        "general.architecture": "deci",
        "deci.block_count": 162,
        "deci.embedding_length": 16384,
        "deci.attention.head_count": 128,
        "deci.attention.head_count_kv": [8 if layer % 5 in (0, 2) and layer < 160 else 0 for layer in range(162)],
    }
    facts = examine(sparse_gguf(tmp_path / "m.gguf", metadata=metadata)).facts
    assert facts.layout is not None
    assert facts.layout.caches == (gqa(64, 8, 128),)
    assert facts.kv_bytes_per_token * 4992 == 1248 * MIB


# --- weights where they lie


def facts_of(shape: well_known.Shape, folder: Path) -> Facts:
    return examine(shape.write(folder / "m.gguf")).facts


def memory(facts: Facts, *words: str, gpu: bool = False) -> LlamaMemory:
    machine = WITH_GPU if gpu else replace(WITHOUT_GPU, ram_total_bytes=1 << 40)
    return LlamaMemory(layout_of(facts), machine, llama_options(words), 0, LlamaConstants())


def test_qwen3_coder_30b_on_a_gpu_and_beside_it(tmp_path: Path) -> None:
    """A CUDA log: 30658.12 MiB on the GPU and 315.30 in RAM, together 30973.42."""
    facts = facts_of(well_known.QWEN3_30B_A3B, tmp_path)
    placed = memory(facts, gpu=True).placement(4096)
    assert placed.components.weights_bytes / MIB == pytest.approx(30658.12, rel=0.0001)
    assert placed.ram_bytes >= 315.30 * MIB
    assert layout_of(facts).input_bytes / MIB == pytest.approx(315.30, rel=0.0001)
    assert memory(facts).components(4096).weights_bytes / MIB == pytest.approx(30973.42, rel=0.0001)


def test_qwen3_30b_bf16_with_experts_of_34_layers_in_ram(tmp_path: Path) -> None:
    """b6895: 17904 MiB on the GPU without the output layer; 58259 in RAM, where the whole file was mapped."""
    facts = facts_of(replace(well_known.QWEN3_30B_A3B, kind=well_known.F16), tmp_path)
    found = memory(facts, "--n-cpu-moe", "34", gpu=True).components(4096)
    assert (found.weights_bytes - layout_of(facts).output_bytes) / MIB == pytest.approx(17904, rel=0.0001)
    assert facts.weights_bytes / MIB == pytest.approx(58259, rel=0.005)


def test_tied_embeddings_are_in_ram_and_on_the_gpu(tmp_path: Path) -> None:
    """Gemma-4-12B: 6390 MiB on the GPU, and 540 of embeddings in RAM."""
    embeddings = ((3840, 262144), well_known.Q4_K)
    beside_bytes = (6390 - 540) * MIB
    tensors = {"token_embd.weight": embeddings, "blk.0.w.weight": ((32, beside_bytes // 34), well_known.Q8_0)}
    path = sparse_gguf(tmp_path / "m.gguf", metadata={"general.architecture": "gemma4"}, tensors=tensors)
    placed = memory(examine(path).facts, gpu=True).placement(4096)
    assert placed.components.weights_bytes / MIB == pytest.approx(6390, rel=0.001)
    assert placed.ram_bytes / MIB == pytest.approx(540, rel=0.001)


@pytest.mark.parametrize(
    ("words", "context", "mib"),
    [
        ((), 4096, 92),
        ((), 32768, 120),
        ((), 131072, 216),
        ((), 262144, 344),
        (("-ub", "128"), 32768, 30),
        (("-ub", "2048"), 32768, 480),
        (("-np", "4"), 65536, 104),
        (("-np", "4", "-kvu"), 65536, 152),
    ],
)
def test_compute_of_qwen3_30b(tmp_path: Path, words: tuple[str, ...], context: int, mib: int) -> None:
    """Our runs of b11434."""
    facts = facts_of(well_known.QWEN3_30B_A3B, tmp_path)
    assert memory(facts, *words).components(context).compute_bytes / MIB == pytest.approx(mib, abs=1)


def test_quantised_keys_are_unpacked_on_a_gpu(tmp_path: Path) -> None:
    """Qwen3.6-27B with q8_0 at 262144 tokens: 1360 MiB."""
    facts = facts_of(well_known.QWEN36_27B, tmp_path)
    found = memory(facts, "-ctk", "q8_0", "-ctv", "q8_0", "-np", "1", gpu=True).components(262144)
    assert found.compute_bytes / MIB == pytest.approx(1360, rel=0.06)


# --- vLLM


def bf16(*shape: int) -> tuple[str, tuple[int, ...]]:
    return ("BF16", shape)


def vllm_memory(facts: Facts, *, sequences: int = 16) -> VllmMemory:
    return VllmMemory(
        layout=layout_of(facts),
        quant=facts.quant,
        gpus=1,
        gpu_bytes=80 * GIB,
        share_bytes=70 * GIB,
        pool_bytes=None,
        sequences=sequences,
        takes_small_numbers=True,
        constants=VllmConstants(),
    )


QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936}


def sized(tmp_path: Path, config: dict[str, object], tensors: dict[str, int], kind: str = "BF16") -> Facts:
    """A folder whose header claims tensors of these many numbers, in a file that has a hole for them."""
    folder = tiny_safetensors(tmp_path / "m", config, tensors={"x": (kind, (0,))})
    header, offset = {}, 0
    for name, count in tensors.items():
        dtype, numbers = ("U8", count) if "blocks" in name or "scales" in name else (kind, count)
        end = offset + numbers * (1 if dtype == "U8" else 2)
        header[name] = {"dtype": dtype, "shape": [numbers], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + offset)
    return examine(folder).facts


@pytest.mark.parametrize(
    ("config", "tensors", "gib"),
    [
        # Qwen3-8B: 15.256 GiB of weights
        (
            {"hidden_size": 4096, "num_hidden_layers": 36, "max_position_embeddings": 40960},
            {"model.layers.0.w": round(15.256 * GIB) // 2},
            15.27,
        ),
        # Qwen3-0.6B: its file still has the output layer that is a copy, 1.40 GiB
        (
            {"hidden_size": 1024, "num_hidden_layers": 28, "max_position_embeddings": 40960},
            {
                "model.embed_tokens.weight": 151936 * 1024,
                "lm_head.weight": 151936 * 1024,
                "model.layers.0.w": 751_632_384 - 2 * 151936 * 1024,
            },
            1.12,
        ),
    ],
)
def test_vllm_loads_what_was_published(
    tmp_path: Path, config: dict[str, object], tensors: dict[str, int], gib: float
) -> None:
    facts = sized(tmp_path, QWEN3 | {"tie_word_embeddings": "lm_head.weight" in tensors} | config, tensors)
    assert vllm_memory(facts).components(4096).weights_bytes / GIB == pytest.approx(gib, abs=0.005)


@pytest.mark.parametrize(
    ("layers", "experts", "gib"),
    [(24, 32, 13.47), (36, 128, 64.38)],
    ids=["gpt-oss-20b", "gpt-oss-120b"],
)
def test_vllm_pads_the_experts_of_gpt_oss(tmp_path: Path, layers: int, experts: int, gib: float) -> None:
    """The files have 12.8 and 60.8 GiB."""
    config: dict[str, object] = {
        "architectures": ["GptOssForCausalLM"],
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": layers,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    weights = 3 * 2880 * 2880 * experts
    tensors = {f"model.layers.{n}.mlp.experts.down_proj_blocks": weights * 17 // 32 for n in range(layers)}
    attention = 2880 * (64 + 8 + 8) * 64 + 64 * 64 * 2880
    tensors["model.layers.0.self_attn.w"] = layers * (attention + experts * 2880 + 3 * 2880 * experts)
    tensors["model.embed_tokens.weight"] = tensors["lm_head.weight"] = 201088 * 2880
    found = vllm_memory(sized(tmp_path, config, tensors)).components(4096)
    assert found.weights_bytes / GIB == pytest.approx(gib, rel=0.005)


def test_vllm_pool_of_qwen3_8b() -> None:
    """6.37 GiB were 46,368 tokens."""
    kept = vllm_cache_bytes((gqa(36, 8, 128),), 46368, number_bytes=2, sequences=16, in_flight=2048)
    assert kept.kv_bytes / GIB == pytest.approx(6.37, abs=0.005)
    assert kept.kv_bytes == 46368 * 147456


def test_vllm_activations_of_llama_3_8b() -> None:
    """1.26 GiB with 256 sequences, in batches of the default of a smaller GPU."""
    layout = Layout(
        input_bytes=0, repeating_bytes=0, expert_bytes=(), output_bytes=0, copied_bytes=0, nextn_bytes=0,
        unloaded_bytes=0, float32_bytes=0, rotation_bytes=0, layer_count=32, hidden_size=4096,
        feed_forward_size=14336, experts_used=0, expert_size=0, attention_heads=32, attention_size=0,
        vocabulary_size=128256, caches=(),
    )  # fmt: skip
    memory = VllmMemory(layout, "bf16", 1, 48 * GIB, 40 * GIB, None, 256, True, VllmConstants())
    assert memory.components(4096).compute_bytes / GIB == pytest.approx(1.26, rel=0.07)

"""Headers of well-known models without their vocabulary: files of a few kilobytes with the real shapes.

llama-server accepts them: they have a hole in place of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.tiny_models import sparse_gguf

F32, F16, Q8_0, Q4_K, Q6_K, MXFP4 = 0, 1, 8, 12, 14, 39

_LLAMA_LAYER_GIB = 0.2158  # of Llama 3.1 8B, with 8 bits for each weight

_Tensors = dict[str, tuple[tuple[int, ...], int]]


@dataclass(frozen=True)
class Shape:
    """An ordinary transformer. `more` is extra metadata of this model, without the architecture's prefix."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    feed_forward: int
    vocabulary: int
    kind: int = Q4_K
    tied: bool = False
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")  # over the whole width
    head_norms: tuple[str, ...] = ()
    experts: int = 0
    experts_used: int = 0
    expert_size: int = 0
    more: Mapping[str, object] = field(default_factory=dict)

    def metadata(self) -> dict[str, object]:
        own: dict[str, object] = {
            "block_count": self.layers,
            "context_length": 262144,
            "embedding_length": self.width,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head,
            "attention.value_length": self.head,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.dimension_count": self.head,
            "vocab_size": self.vocabulary,
        }
        if self.experts:
            own |= {
                "expert_count": self.experts,
                "expert_used_count": self.experts_used,
                "expert_feed_forward_length": self.expert_size,
            }
        prefixed = {f"{self.architecture}.{key}": value for key, value in (own | dict(self.more)).items()}
        return {"general.architecture": self.architecture, "tokenizer.ggml.model": "no_vocab", **prefixed}

    def outer_tensors(self) -> _Tensors:
        tensors: _Tensors = {"token_embd.weight": ((self.width, self.vocabulary), self.kind)}
        if not self.tied:
            tensors["output.weight"] = ((self.width, self.vocabulary), Q6_K if self.kind == Q4_K else self.kind)
        return tensors | {"output_norm.weight": ((self.width,), F32)}

    def tensors(self) -> _Tensors:
        tensors = self.outer_tensors()
        for layer in range(self.layers):
            tensors |= {f"blk.{layer}.{name}": what for name, what in self.layer_tensors().items()}
        return tensors

    def layer_tensors(self) -> _Tensors:
        width, kind, queries, keys = self.width, self.kind, self.heads * self.head, self.kv_heads * self.head
        tensors: _Tensors = {f"{norm}.weight": ((width,), F32) for norm in self.norms}
        tensors |= {f"{norm}.weight": ((self.head,), F32) for norm in self.head_norms}
        tensors |= {
            "attn_q.weight": ((width, queries), kind),
            "attn_k.weight": ((width, keys), kind),
            "attn_v.weight": ((width, keys), kind),
            "attn_output.weight": ((queries, width), kind),
        }
        if not self.experts:
            return tensors | {
                "ffn_gate.weight": ((width, self.feed_forward), kind),
                "ffn_up.weight": ((width, self.feed_forward), kind),
                "ffn_down.weight": ((self.feed_forward, width), kind),
            }
        return tensors | {
            "ffn_gate_inp.weight": ((width, self.experts), F32),
            "ffn_gate_exps.weight": ((width, self.expert_size, self.experts), kind),
            "ffn_up_exps.weight": ((width, self.expert_size, self.experts), kind),
            "ffn_down_exps.weight": ((self.expert_size, width, self.experts), kind),
        }

    def write(self, path: Path) -> Path:
        return sparse_gguf(path, metadata=self.metadata(), tensors=self.tensors())


def llama_of(size_gib: float, *, context: int = 8192, embedding: bool = False) -> Shape:
    """Return a Llama with weights of about this size; each token of its context costs 4 KiB for every 0.22 GiB."""
    layers = max(1, round(size_gib / _LLAMA_LAYER_GIB))
    more = {"context_length": context, **({"pooling_type": 1} if embedding else {})}
    return Shape("llama", layers, 4096, 32, 8, 128, 14336, 1024, Q8_0, more=more)


@dataclass(frozen=True)
class Hybrid(Shape):
    """Qwen3.5 and similar: three of four layers keep a state, and the last ones predict further tokens."""

    inner: int = 6144
    state: int = 128
    groups: int = 16
    ranks: int = 48

    def metadata(self) -> dict[str, object]:
        return super().metadata() | {
            "qwen35.block_count": self.layers + 1,
            "qwen35.nextn_predict_layers": 1,
            "qwen35.rope.dimension_count": 64,
            "qwen35.rope.dimension_sections": [11, 11, 10, 0],
            "qwen35.full_attention_interval": 4,
            "qwen35.ssm.conv_kernel": 4,
            "qwen35.ssm.inner_size": self.inner,
            "qwen35.ssm.state_size": self.state,
            "qwen35.ssm.group_count": self.groups,
            "qwen35.ssm.time_step_rank": self.ranks,
        }

    def tensors(self) -> _Tensors:
        tensors, width, kind = self.outer_tensors(), self.width, self.kind
        keys, values = self.state * self.groups, self.state * self.ranks
        attention = self.layer_tensors() | {"attn_q.weight": ((width, 2 * self.heads * self.head), kind)}
        recurrent = {
            name: what for name, what in attention.items() if not name.startswith("attn_") or name == "attn_norm.weight"
        } | {
            "attn_qkv.weight": ((width, 2 * keys + values), kind),
            "attn_gate.weight": ((width, values), kind),
            "ssm_conv1d.weight": ((4, 2 * keys + values), F32),
            "ssm_dt.bias": ((self.ranks,), F32),
            "ssm_a": ((self.ranks,), F32),
            "ssm_beta.weight": ((width, self.ranks), kind),
            "ssm_alpha.weight": ((width, self.ranks), kind),
            "ssm_norm.weight": ((self.state,), F32),
            "ssm_out.weight": ((values, width), kind),
        }
        predicting = attention | {
            "nextn.eh_proj.weight": ((2 * width, width), kind),
            "nextn.enorm.weight": ((width,), F32),
            "nextn.hnorm.weight": ((width,), F32),
        }
        for layer in range(self.layers + 1):
            own = predicting if layer == self.layers else attention if (layer + 1) % 4 == 0 else recurrent
            tensors |= {f"blk.{layer}.{name}": what for name, what in own.items()}
        return tensors


@dataclass(frozen=True)
class Latent(Shape):
    """DeepSeek V2 and V3: one compressed key for all heads."""

    rank: int = 512
    turned: int = 64
    straight: int = 128
    value: int = 128
    query_rank: int = 0
    shared_experts: int = 1

    def metadata(self) -> dict[str, object]:
        own: dict[str, object] = {
            "attention.head_count_kv": 1,
            "attention.key_length": self.rank + self.turned,
            "attention.value_length": self.rank,
            "attention.key_length_mla": self.straight + self.turned,
            "attention.value_length_mla": self.value,
            "attention.kv_lora_rank": self.rank,
            "rope.dimension_count": self.turned,
            "leading_dense_block_count": 1,
            "expert_shared_count": self.shared_experts,
            "expert_weights_scale": 1.0,
            "expert_gating_func": 1,
            **({"attention.q_lora_rank": self.query_rank} if self.query_rank else {}),
        }
        return super().metadata() | {f"{self.architecture}.{key}": value for key, value in own.items()}

    def tensors(self) -> _Tensors:
        tensors = self.outer_tensors()
        for layer in range(self.layers):
            own = self._attention() | (self._dense() if layer == 0 else self._mixture())
            tensors |= {f"blk.{layer}.{name}": what for name, what in own.items()}
        return tensors

    def _attention(self) -> _Tensors:
        width, kind, heads, queries = self.width, self.kind, self.heads, self.heads * (self.straight + self.turned)
        tensors: _Tensors = {
            "attn_norm.weight": ((width,), F32),
            "ffn_norm.weight": ((width,), F32),
            "attn_kv_a_norm.weight": ((self.rank,), F32),
            "attn_kv_a_mqa.weight": ((width, self.rank + self.turned), kind),
            "attn_k_b.weight": ((self.straight, self.rank, heads), kind),
            "attn_v_b.weight": ((self.rank, self.value, heads), kind),
            "attn_output.weight": ((heads * self.value, width), kind),
        }
        if not self.query_rank:
            return tensors | {"attn_q.weight": ((width, queries), kind)}
        return tensors | {
            "attn_q_a.weight": ((width, self.query_rank), kind),
            "attn_q_a_norm.weight": ((self.query_rank,), F32),
            "attn_q_b.weight": ((self.query_rank, queries), kind),
        }

    def _dense(self) -> _Tensors:
        width, kind, inner = self.width, self.kind, self.feed_forward
        return {
            "ffn_gate.weight": ((width, inner), kind),
            "ffn_up.weight": ((width, inner), kind),
            "ffn_down.weight": ((inner, width), kind),
        }

    def _mixture(self) -> _Tensors:
        width, kind, inner = self.width, self.kind, self.expert_size
        shared = inner * self.shared_experts
        return {
            "ffn_gate_inp.weight": ((width, self.experts), F32),
            "ffn_gate_exps.weight": ((width, inner, self.experts), kind),
            "ffn_up_exps.weight": ((width, inner, self.experts), kind),
            "ffn_down_exps.weight": ((inner, width, self.experts), kind),
            "ffn_gate_shexp.weight": ((width, shared), kind),
            "ffn_up_shexp.weight": ((width, shared), kind),
            "ffn_down_shexp.weight": ((shared, width), kind),
        }


_NORMS = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
_HEAD_NORMS = ("attn_q_norm", "attn_k_norm")

LLAMA_31_8B = Shape("llama", 32, 4096, 32, 8, 128, 14336, 128256)
QWEN3_06B = Shape("qwen3", 28, 1024, 16, 8, 128, 3072, 151936, Q8_0, tied=True, head_norms=_HEAD_NORMS)
QWEN3_8B = Shape("qwen3", 36, 4096, 32, 8, 128, 12288, 151936, head_norms=_HEAD_NORMS)
QWEN3_30B_A3B = Shape(
    "qwen3moe", 48, 2048, 32, 4, 128, 6144, 151936, Q8_0, head_norms=_HEAD_NORMS,
    experts=128, experts_used=8, expert_size=768,
)  # fmt: skip
MIXTRAL_8X7B = Shape("llama", 32, 4096, 32, 8, 128, 14336, 32000, experts=8, experts_used=2, expert_size=14336)
GEMMA_2_9B = Shape(
    "gemma2",
    42,
    3584,
    16,
    8,
    256,
    14336,
    256000,
    Q8_0,
    tied=True,
    norms=_NORMS,
    more={"attention.sliding_window": 4096},
)
GEMMA_3_12B = Shape(
    "gemma3", 48, 3840, 16, 8, 256, 15360, 262144, Q8_0, tied=True, norms=_NORMS, head_norms=_HEAD_NORMS,
    more={"attention.sliding_window": 1024},
)  # fmt: skip
QWEN36_27B = Hybrid(
    "qwen35", 64, 5120, 24, 4, 256, 17408, 248320, norms=("attn_norm", "post_attention_norm"), head_norms=_HEAD_NORMS
)
DEEPSEEK_V2_LITE = Latent(
    "deepseek2", 27, 2048, 16, 1, 192, 10944, 102400, Q8_0,
    experts=64, experts_used=6, expert_size=1408, shared_experts=2,
)  # fmt: skip
DEEPSEEK_V3_CUT = Latent(  # four of its 61 layers
    "deepseek2", 4, 7168, 128, 1, 192, 18432, 129280, Q8_0,
    experts=256, experts_used=8, expert_size=2048, query_rank=1536,
)  # fmt: skip

#!/usr/bin/env python3
"""Make a tiny language model as a folder that real vLLM loads and generates from: random weights, a token per byte.

    python contrib/tiny_safetensors.py OUT --seed 1
    python contrib/tiny_safetensors.py OUT --embedding

What it says is nonsense, but the same nonsense for the same seed. Needs numpy, and neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIALS = ("<s>", "</s>")
_VOCABULARY = len(_SPECIALS) + 256

_Weights = Mapping[str, numpy.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; the defaults give 530 kB in F32."""

    layers: int = 2
    width: int = 64
    heads: int = 2  # 32 wide each: the least that vLLM's attention takes on a CPU
    kv_heads: int = 1
    feed_forward: int = 192
    context: int = 2048

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def tiny_safetensors(folder: Path, *, seed: int = 0, embedding: bool = False, context: int = 2048) -> Path:
    """Write the model into `folder`, chat or (mean-pooled, sentence-transformers) embedding."""
    shape = Shape(context=context)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / "model.safetensors", _tensors(shape, seed, embedding))
    records = {
        "config.json": _config(shape, embedding),
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": _tokenizer_config(shape, embedding),
    }
    if embedding:
        records |= _pooling(shape)
    else:
        records["generation_config.json"] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    for name, record in records.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(record, indent=1))
    return folder


def _config(shape: Shape, embedding: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaModel" if embedding else "LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": _VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }


def _pooling(shape: Shape) -> dict[str, Any]:
    modules = "sentence_transformers.models"
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{modules}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{modules}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{modules}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": shape.width, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": shape.context, "do_lower_case": False},
    }


def _tensors(shape: Shape, seed: int, embedding: bool) -> _Weights:
    """Random weights, small enough that no activation overflows; norms are ones."""
    random = numpy.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> numpy.ndarray[Any, Any]:
        return random.normal(0.0, columns**-0.5, (rows, columns)).astype("<f4")

    ones = numpy.ones(shape.width, dtype="<f4")
    kv_width = shape.kv_heads * shape.head_width
    named = {"embed_tokens": matrix(_VOCABULARY, shape.width), "norm": ones}
    for layer in range(shape.layers):
        named |= {
            f"layers.{layer}.input_layernorm": ones,
            f"layers.{layer}.self_attn.q_proj": matrix(shape.width, shape.width),
            f"layers.{layer}.self_attn.k_proj": matrix(kv_width, shape.width),
            f"layers.{layer}.self_attn.v_proj": matrix(kv_width, shape.width),
            f"layers.{layer}.self_attn.o_proj": matrix(shape.width, shape.width),
            f"layers.{layer}.post_attention_layernorm": ones,
            f"layers.{layer}.mlp.gate_proj": matrix(shape.feed_forward, shape.width),
            f"layers.{layer}.mlp.up_proj": matrix(shape.feed_forward, shape.width),
            f"layers.{layer}.mlp.down_proj": matrix(shape.width, shape.feed_forward),
        }
    if embedding:
        return {f"{name}.weight": weights for name, weights in named.items()}
    whole = {f"model.{name}.weight": weights for name, weights in named.items()}
    return whole | {"lm_head.weight": matrix(_VOCABULARY, shape.width)}


def _write_weights(path: Path, tensors: _Weights) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, weights in tensors.items():
        end = offset + weights.nbytes
        header[name] = {"dtype": "F32", "shape": list(weights.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(weights.tobytes() for weights in tensors.values())


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE without merges: one token for each byte."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text} | special for number, text in enumerate(_SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: number for number, text in enumerate([*_SPECIALS, *_letters_of_bytes()])},
            "merges": [],
        },
    }


def _letters_of_bytes() -> list[str]:
    """The printable letter by which byte-level BPE writes each byte: GPT-2's table."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [value for value in range(256) if value not in shown]
    return [chr(value if value in shown else 256 + hidden.index(value)) for value in range(256)]


def _tokenizer_config(shape: Shape, embedding: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
    }
    return config if embedding else config | {"chat_template": CHAT_TEMPLATE}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedding", action="store_true", help="an embedding model (mean pooling)")
    arguments = parser.parse_args()
    tiny_safetensors(arguments.out, seed=arguments.seed, embedding=arguments.embedding)


if __name__ == "__main__":
    main()

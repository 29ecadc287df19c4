#!/usr/bin/env python3
"""Make a tiny language model that real llama.cpp loads and generates from: random weights, a vocabulary of bytes.

    python contrib/tiny_gguf.py OUT.gguf --name a --seed 1

What it says is nonsense, but the same nonsense for the same seed. Needs the `gguf` package (and numpy with it).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_TOKEN, _UNKNOWN, _CONTROL, _BYTE = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.UNKNOWN,
    gguf.TokenType.CONTROL,
    gguf.TokenType.BYTE,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; the defaults give 585 kB in F32."""

    architecture: str = "llama"
    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 192
    context: int = 2048

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def vocabulary() -> tuple[list[bytes], list[float], list[gguf.TokenType]]:
    """A SentencePiece vocabulary that can spell anything: every byte is a token, printable ASCII has its own."""
    letters = [chr(code) for code in range(0x21, 0x7F)]
    rows = [
        ("<unk>", 0.0, _UNKNOWN),
        ("<s>", 0.0, _CONTROL),
        ("</s>", 0.0, _CONTROL),
        *((f"<0x{value:02X}>", 0.0, _BYTE) for value in range(256)),
        *((letter, -1.0 - rank, _TOKEN) for rank, letter in enumerate(["▁", *letters])),
    ]
    tokens, scores, kinds = zip(*rows, strict=True)
    return [token.encode() for token in tokens], list(scores), list(kinds)


def tensors(shape: Shape, vocabulary_size: int, seed: int) -> dict[str, numpy.ndarray[Any, Any]]:
    """Random weights, small enough that no activation overflows; norms are ones."""
    random = numpy.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> numpy.ndarray[Any, Any]:
        return random.normal(0.0, columns**-0.5, (rows, columns)).astype(numpy.float32)

    ones = numpy.ones(shape.width, dtype=numpy.float32)
    kv_width = shape.kv_heads * shape.head_width
    named = {
        "token_embd": matrix(vocabulary_size, shape.width),
        "output_norm": ones,
        "output": matrix(vocabulary_size, shape.width),
    }
    for layer in range(shape.layers):
        named |= {
            f"blk.{layer}.attn_norm": ones,
            f"blk.{layer}.attn_q": matrix(shape.width, shape.width),
            f"blk.{layer}.attn_k": matrix(kv_width, shape.width),
            f"blk.{layer}.attn_v": matrix(kv_width, shape.width),
            f"blk.{layer}.attn_output": matrix(shape.width, shape.width),
            f"blk.{layer}.ffn_norm": ones,
            f"blk.{layer}.ffn_gate": matrix(shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_up": matrix(shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_down": matrix(shape.width, shape.feed_forward),
        }
    return {f"{name}.weight": weights for name, weights in named.items()}


def tiny_gguf(
    path: Path,
    *,
    name: str = "tiny",
    seed: int = 0,
    chat: bool = True,
    pooling: gguf.PoolingType | None = None,
    shape: Shape | None = None,
) -> Path:
    """Write the model to `path`; with `pooling` it is an embedding model."""
    shape = shape or Shape()
    tokens, scores, kinds = vocabulary()
    writer = gguf.GGUFWriter(os.fspath(path), shape.architecture)
    _describe(writer, shape, name, len(tokens), pooling)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if chat:
        writer.add_chat_template(CHAT_TEMPLATE)
    for tensor_name, weights in tensors(shape, len(tokens), seed).items():
        writer.add_tensor(tensor_name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(
    writer: gguf.GGUFWriter, shape: Shape, name: str, vocabulary_size: int, pooling: gguf.PoolingType | None
) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(vocabulary_size)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-5)
    if pooling is not None:
        writer.add_pooling_type(pooling)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedding", action="store_true", help="an embedding model (mean pooling)")
    arguments = parser.parse_args()
    pooling = gguf.PoolingType.MEAN if arguments.embedding else None
    tiny_gguf(
        arguments.out,
        name=arguments.name,
        seed=arguments.seed,
        chat=not arguments.embedding,
        pooling=pooling,
    )


if __name__ == "__main__":
    main()

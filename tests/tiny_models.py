"""Tiny real models, and false headers: made here so that no test needs a download."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def _load_maker(name: str) -> ModuleType:
    # A script, not a package: the demo also runs it on its own.
    path = Path(__file__).parent.parent / "contrib" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # @dataclass looks up the module of its class there
    spec.loader.exec_module(module)
    return module


_maker = _load_maker("tiny_gguf")
_folder_maker = _load_maker("tiny_safetensors")


def tiny_gguf(
    path: Path,
    *,
    name: str = "tiny",
    chat: bool = True,
    n_layers: int = 2,
    dim: int = 64,
    context: int = 2048,
    seed: int = 0,
) -> Path:
    """Write a model that llama.cpp loads and generates from; 585 kB by default."""
    shape = _maker.Shape(layers=n_layers, width=dim, context=context)
    made: Path = _maker.tiny_gguf(path, name=name, chat=chat, seed=seed, shape=shape)
    return made


def tiny_embedding_gguf(path: Path, *, name: str = "tiny-embedding", seed: int = 0) -> Path:
    """Write a model for `/v1/embeddings` (mean pooling)."""
    import gguf

    made: Path = _maker.tiny_gguf(path, name=name, chat=False, seed=seed, pooling=gguf.PoolingType.MEAN)
    return made


def tiny_folder(folder: Path, *, seed: int = 0, embedding: bool = False, context: int = 2048) -> Path:
    """Write a folder of safetensors that vLLM loads and generates from, or embeds with; 530 kB."""
    made: Path = _folder_maker.tiny_safetensors(folder, seed=seed, embedding=embedding, context=context)
    return made


_VALUE_TYPES = {"u8": 0, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "string": 8, "u64": 10, "i64": 11}
_PACKED = {0: "<B", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q"}


def packed_string(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content)) + content


def packed_value(value: object) -> bytes:
    """Encode a metadata value with its type; lists become arrays of their first item's type."""
    if isinstance(value, list):
        kind = _kind(next(filter(_is_wide, value), value[0]))
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(_packed(kind, item) for item in value)
    kind = _kind(value)
    return struct.pack("<I", kind) + _packed(kind, value)


def _is_wide(value: object) -> bool:
    return isinstance(value, int) and not 0 <= value < 1 << 32


def _kind(value: object) -> int:
    if _is_wide(value):
        return _VALUE_TYPES["i64"]
    return _VALUE_TYPES[{bool: "bool", int: "u32", float: "f32", str: "string", bytes: "string"}[type(value)]]


def _packed(kind: int, value: Any) -> bytes:
    return packed_string(value) if kind == 8 else struct.pack(_PACKED[kind], value)


def gguf_header(
    metadata: Mapping[str, object],
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
    *,
    version: int = 3,
    tensor_count: int | None = None,
    entry_count: int | None = None,
    magic: bytes = b"GGUF",
) -> bytes:
    """Return the bytes of a header, true or false; a tensor is (name, shape, ggml type, offset)."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(metadata) if entry_count is None else entry_count,
    )
    entries = [packed_string(key) + packed_value(value) for key, value in metadata.items()]
    infos = [
        packed_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)
        for name, shape, kind, offset in tensors
    ]
    return magic + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(infos)


def sparse_gguf(
    path: Path,
    apparent_bytes: int = 0,
    *,
    metadata: Mapping[str, object] | None = None,
    tensors: Mapping[str, tuple[Sequence[int], int]] | None = None,
) -> Path:
    """Write a file with a true header and a hole in place of the weights; tensors are name: (shape, ggml type). Without
    `tensors` it has a single one that fills `apparent_bytes`.
    """
    from mmd.registry.formats.ggml import TENSOR_TYPES

    wanted = tensors or {"blk.0.ffn_up.weight": ((32, max(1, apparent_bytes // 34)), 8)}
    infos, offset = [], 0
    for name, (shape, kind) in wanted.items():
        infos.append((name, shape, kind, offset))
        elements = 1
        for side in shape:
            elements *= side
        size_bytes = elements // TENSOR_TYPES[kind].block * TENSOR_TYPES[kind].block_bytes
        offset += -(-size_bytes // 32) * 32
    path.write_bytes(gguf_header({"general.architecture": "llama", **(metadata or {})}, infos))
    os.truncate(path, max(apparent_bytes, path.stat().st_size + 32 + offset))
    return path


def safetensors_bytes(
    tensors: Mapping[str, tuple[str, Sequence[int]]], *, bits: Mapping[str, int] | None = None
) -> bytes:
    """Write a safetensors file of zeros; tensors are name: (dtype, shape)."""
    widths = {"F32": 32, "BF16": 16, "F16": 16, "I32": 32, "U8": 8, "F8_E4M3": 8, "F4": 4, **(bits or {})}
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        elements = 1
        for side in shape:
            elements *= side
        end = offset + elements * widths[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def sparse_safetensors(folder: Path, size_gib: float, *, context: int = 8192, heads: int = 32) -> Path:
    """Write a folder that vLLM would take for a Llama with weights of about this size, which are a hole."""
    width, inner, vocabulary = 4096, 14336, 1024
    keys = width // 4
    layer = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    layer_bytes = sum(2 * rows * columns for rows, columns in layer.values())
    layers = max(1, round(size_gib * 1024**3 / layer_bytes))
    shapes = {
        f"model.layers.{number}.{name}.weight": shape for number in range(layers) for name, shape in layer.items()
    }
    shapes |= {"model.embed_tokens.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (rows, columns) in shapes.items():
        start, end = end, end + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(weights, 8 + len(text) + end)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 4,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tiny_safetensors(
    folder: Path,
    config: Mapping[str, object] | None = None,
    *,
    tensors: Mapping[str, tuple[str, Sequence[int]]] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a folder like a Hugging Face download: weights of zeros, config.json, and `files`. It is for detection: no
    engine can generate from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = tensors or {"model.embed_tokens.weight": ("BF16", (16, 8)), "model.norm.weight": ("BF16", (8,))}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(weights))
    (folder / "config.json").write_text(json.dumps(config or {"architectures": ["LlamaForCausalLM"]}))
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder

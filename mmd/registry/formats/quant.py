"""Name the quantisation of a model, from its weights, checked against its label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mmd.registry.formats.folder import Config, read_config
from mmd.registry.formats.ggml import FILE_TYPES
from mmd.registry.formats.gguf import GgufHeader, Tensor
from mmd.registry.formats.safetensors import Weights

# llama.cpp sets this bit if it guessed the file type from the tensors.
_GUESSED = 1024
# Files like "UD-Q4_K_XL" claim Q4_K_M in their header, but differ from it by 8 % or more.
_BITS_TOLERANCE = 0.07

_QUANT_IN_NAME = re.compile(
    r"(?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)+|TQ\d_\d|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4)", re.IGNORECASE
)


def gguf_quant(headers: Sequence[GgufHeader]) -> str:
    """Return the label of `general.file_type` if the tensors agree, else that of the file name, else the main type."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    inner = [tensor for tensor in tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1] or tensors
    dominant, bits = _dominant_type(inner), _bits_per_weight(inner)
    claimed = FILE_TYPES.get((headers[0].integer("general.file_type") or 0) & ~_GUESSED)
    if "general.file_type" in headers[0].metadata and claimed and dominant in claimed.types:
        off = abs(bits / claimed.block_bits - 1) if claimed.block_bits else 0.0
        if off <= _BITS_TOLERANCE:
            return claimed.label
    named = named_quant(headers[0].path.name)
    if named.removeprefix("UD-").startswith(dominant):
        return named
    if min(tensor.type.block for tensor in inner) == 1:
        return dominant
    return f"{dominant} ({bits:.2f} bpw)"


def named_quant(file: str) -> str:
    """Return the quantisation in a file name ("Q4_K_M"), "" if there is none."""
    named: list[str] = _QUANT_IN_NAME.findall(file)
    return named[-1].upper() if named else ""


def _dominant_type(tensors: Iterable[Tensor]) -> str:
    histogram: Counter[str] = Counter()
    for tensor in tensors:
        histogram[tensor.type.name] += tensor.elements
    return histogram.most_common(1)[0][0]


def _bits_per_weight(tensors: Sequence[Tensor]) -> float:
    return 8 * sum(tensor.size_bytes for tensor in tensors) / max(1, sum(tensor.elements for tensor in tensors))


def quantization_of(config: Config) -> Config:
    """Return the section about quantisation from any of its places; empty if there is none."""
    for owner in (config, config.language()):
        for key in ("quantization_config", "compression_config"):
            if owner.data.get(key):
                return owner.section(key)
    return read_config(config.path.parent, "hf_quant_config.json").section("quantization")


def folder_quant(config: Config, weights: Weights) -> str:
    """Return "awq-4bit", "fp8", "compressed-tensors-w4a16", …; for unquantised weights the dtype ("bf16")."""
    quantization = quantization_of(config)
    method = quantization.text("quant_method").lower()
    if not method and quantization.data:
        return quantization.text("quant_algo").lower() or "modelopt"
    match method:
        case "":
            return weights.dominant_dtype.lower()
        case "compressed-tensors":
            return _compressed_tensors(quantization)
        case "bitsandbytes":
            return "bnb-4bit" if quantization.flag("load_in_4bit") else "bnb-8bit"
        case "modelopt" | "modelopt_fp4" | "modelopt_mixed":
            return quantization.text("quant_algo").lower() or method
        case _:
            bits = quantization.integer("bits", "w_bit")
            return f"{method}-{bits}bit" if bits else method


def _compressed_tensors(quantization: Config) -> str:
    """Return the scheme of the first group in short form: w4a16, w8a8, fp8, nvfp4."""
    groups = quantization.section("config_groups")
    group = groups.section(next(iter(groups.data), ""))
    weights, activations = group.section("weights"), group.section("input_activations")
    bits = weights.integer("num_bits")
    if not bits:
        return "compressed-tensors"
    scheme = f"w{bits}a{activations.integer('num_bits') or 16}"
    if weights.text("type") == "float":
        scheme = "fp8" if bits == 8 else f"nvfp4-{scheme}" if "nvfp4" in quantization.text("format") else f"fp{bits}"
    return f"compressed-tensors-{scheme}"


def parameters(config: Config, weights: Weights) -> int:
    """Return the number of parameters; a packed integer holds several."""
    quantization = quantization_of(config)
    bits = quantization.integer("bits", "w_bit") or _group_bits(quantization)
    if quantization.flag("load_in_4bit") or "fp4" in folder_quant(config, weights):
        bits = 4
    packing = {"I32": max(1, 32 // bits), "U8": max(1, 8 // bits)} if bits else {}
    return sum(count * packing.get(dtype, 1) for dtype, count in weights.elements.items())


def _group_bits(quantization: Config) -> int | None:
    groups = quantization.section("config_groups")
    return groups.section(next(iter(groups.data), "")).section("weights").integer("num_bits")

"""Tables of ggml's tensor types and llama.cpp's file types, by their numbers in GGUF headers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a row is stored: `block_bytes` for every `block` weights."""

    name: str
    block: int
    block_bytes: int


# ggml.h and ggml.c of llama.cpp b11434; missing numbers belong to removed types.
TENSOR_TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 40),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}


# Bytes that a block takes beyond its size when llama.cpp b11434 lays it out for AMX: `get_row_size` in amx/mmq.cpp.
# Its AMX buffer type takes two-dimensional weights of these types only (`supports_op` in amx/amx.cpp).
AMX_BLOCK_BYTES: dict[str, int] = {
    "F16": 0,
    "Q4_0": 0,
    "Q4_1": 0,
    "Q8_0": 4,
    "Q4_K": 4,
    "Q5_K": 4,
    "Q6_K": 0,
    "IQ4_XS": 2,
}


@dataclass(frozen=True, slots=True)
class FileType:
    """What `general.file_type` claims: a label, the types most weights then have, and bits per weight.

    `block_bits` is counted over the layers alone (embeddings differ too much between models); it is
    0 if the recipe depends on the model, and for plain types, whose size needs no check.
    """

    label: str
    types: frozenset[str]
    block_bits: float = 0.0


def _file_type(label: str, types: str = "", block_bits: float = 0.0) -> FileType:
    return FileType(label, frozenset((types or label).split()), block_bits)


# llama.h, enum llama_ftype. The bits are those of the recipes in llama-quant.cpp on a dense Llama.
FILE_TYPES: dict[int, FileType] = {
    0: _file_type("F32"),
    1: _file_type("F16"),
    2: _file_type("Q4_0"),
    3: _file_type("Q4_1"),
    7: _file_type("Q8_0"),
    8: _file_type("Q5_0"),
    9: _file_type("Q5_1"),
    10: _file_type("Q2_K", "Q2_K", 2.94),
    11: _file_type("Q3_K_S", "Q3_K", 3.44),
    12: _file_type("Q3_K_M", "Q3_K", 3.87),
    13: _file_type("Q3_K_L", "Q3_K", 4.19),
    14: _file_type("Q4_K_S", "Q4_K", 4.55),
    15: _file_type("Q4_K_M", "Q4_K", 4.81),
    16: _file_type("Q5_K_S", "Q5_K", 5.50),
    17: _file_type("Q5_K_M", "Q5_K", 5.66),
    18: _file_type("Q6_K", "Q6_K", 6.56),
    19: _file_type("IQ2_XXS"),
    20: _file_type("IQ2_XS"),
    21: _file_type("Q2_K_S", "Q2_K"),
    22: _file_type("IQ3_XS", "IQ3_XXS IQ3_S"),
    23: _file_type("IQ3_XXS"),
    24: _file_type("IQ1_S"),
    25: _file_type("IQ4_NL"),
    26: _file_type("IQ3_S"),
    27: _file_type("IQ3_M", "IQ3_S"),
    28: _file_type("IQ2_S", "IQ2_XS IQ2_S"),
    29: _file_type("IQ2_M", "IQ2_S"),
    30: _file_type("IQ4_XS"),
    31: _file_type("IQ1_M"),
    32: _file_type("BF16"),
    36: _file_type("TQ1_0"),
    37: _file_type("TQ2_0"),
    38: _file_type("MXFP4", "MXFP4"),
    39: _file_type("NVFP4"),
    40: _file_type("Q1_0"),
}

"""The RAM that weights take beyond their size in the file, when llama.cpp lays them out for the CPU.

Facts: llama.cpp b11434. For a weight that is multiplied, the loader takes the first buffer type that supports it, in
the order AMX, CPU_REPACK, CPU (`make_cpu_buft_list` in llama-model.cpp). With a GPU its pinned memory comes before all
three, so nothing is repacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from mmd.registry.formats.ggml import AMX_BLOCK_BYTES, TENSOR_TYPES
from mmd.registry.layout import Layout

# `ggml_repack_get_optimal_repack_type` in repack.cpp: tensor types by the CPU feature that they are repacked for. The
# repacked weights are as large as the original.
_REPACKED: Mapping[str, Set[str]] = {
    "avx2": {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"},
    "avx512f": {"Q2_K"},
    "asimddp": {"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"},
    "i8mm": {"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q1_0"},
}
# `#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)` in amx/amx.cpp.
_AMX = frozenset({"amx_int8", "avx512_vnni"})
_BLOCK_BYTES = {kind.name: kind.block_bytes for kind in TENSOR_TYPES.values()}


def repacked_bytes(layout: Layout, features: Set[str], *, is_amx_build: bool) -> int:
    """Return the bytes beyond the weights' own on a CPU with these `features`.

    AMX adds bytes to the blocks of some types. Embeddings that are the output layer too are copied if the
    multiplication takes another buffer type than the look-up, which needs the plain one (TENSOR_DUPLICATED in
    llama-model-loader.cpp).
    """
    kind, copied_bytes = layout.embeddings_type, layout.copied_bytes
    uses_amx = is_amx_build and features >= _AMX
    more_bytes = layout.amx_bytes if uses_amx else 0
    if uses_amx and kind in AMX_BLOCK_BYTES:
        return more_bytes + copied_bytes + copied_bytes // _BLOCK_BYTES[kind] * AMX_BLOCK_BYTES[kind]
    is_copied = any(kind in types for feature, types in _REPACKED.items() if feature in features)
    return more_bytes + (copied_bytes if is_copied else 0)

"""What no header says: properties of a machine and of an engine's version, best measured there once."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.quantities import GIB, MIB


@dataclass(frozen=True, slots=True)
class Constants:
    """Defaults from published measurements; whoever has measured here puts in what was found, with its own error."""

    # Of CUDA and of what libraries take, for each process and GPU: 140 MiB on a laptop, 750 on a Blackwell card.
    context_bytes: int = 460 * MIB
    context_error_bytes: int = 300 * MIB
    # An engine on the CPU: its program and heap.
    process_bytes: int = 100 * MIB
    process_error_bytes: int = 60 * MIB

    # llama.cpp's compute buffers, times the formula of `llama_memory`, which is exact for b11434 without a GPU.
    compute_factor: float = 1.0
    compute_error: float = 0.25  # share of what the formula says
    compute_error_bytes: int = 64 * MIB
    # What an image takes beside the projector: Qwen3.6's 888 MiB computed in 248.
    projector_factor: float = 1.35
    projector_error: float = 0.15

    # vLLM, 0.20 to 0.32. Memory that torch does not know of, for each GPU: alone, and among several.
    non_torch_bytes: int = 133 * MIB
    non_torch_among_several_bytes: int = 563 * MIB
    # The sampler's, for each sequence and word of the vocabulary. Fits six rows of llm-d on H100 within 0.6 %; the
    # FlashInfer sampler takes half.
    activation_bytes_per_logit: float = 38.3
    activation_error: float = 0.5
    # 0.1 to 1 GiB; for the few sequences that mmd asks for, the lower half.
    graphs_bytes: int = 400 * MIB
    graphs_error_bytes: int = 250 * MIB
    # A vLLM process on the CPU: Python, torch and what it has compiled.
    vllm_process_bytes: int = 1200 * MIB
    vllm_process_error_bytes: int = 400 * MIB
    # Of a model of unknown width, which an older registry and a list of the hub do not tell.
    unknown_compute_bytes: int = GIB // 4
    unknown_activation_bytes: int = 1003 * MIB  # with graphs and libraries a GiB and a half
    unknown_error_bytes: int = GIB // 2

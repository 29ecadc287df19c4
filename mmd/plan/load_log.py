"""What an engine's log says of the memory that a load took, in the words of llama.cpp, old and new, and of vLLM."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mmd.quantities import GIB, MIB

# "load_tensors:        CUDA0 model buffer size =  4403.49 MiB"; what lies in RAM beside a GPU is none of the GPU's.
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output)\s+buffer size\s*=\s*([\d.]+) MiB")
_HOST = re.compile(r"CPU|\S*_Host\b|CPU_Mapped")
# "srv load_model: initializing, n_slots = 4, n_ctx_slot = 8192, kv_unified = 'true'"
_SLOTS = re.compile(r"n_slots = (\d+), n_ctx_slot = (\d+), kv_unified = '(\w+)'")
_CONTEXT = re.compile(r"\bn_ctx\s*=\s*(\d+)$")
_VLLM_WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB")
_VLLM_ACTUAL = re.compile(
    r"Actual usage is ([\d.]+) GiB for consumed memory \(weights \+ non-torch\), ([\d.]+) GiB for peak activation, "
    r"and ([\d.]+) GiB for CUDAGraph memory"
)
_VLLM_FORESEEN = re.compile(r"CUDA graph pool memory: [\d.]+ GiB \(actual\), ([\d.]+) GiB \(estimated\)")
_VLLM_POOL = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_VLLM_LENGTH = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request")


@dataclass(slots=True)
class LoadLog:
    """Bytes of the memory that the model runs in; None where the log does not tell."""

    context: int | None = None  # tokens
    weights_bytes: int | None = None
    kv_bytes: int | None = None  # for the whole context; vLLM's pool is something else
    state_bytes: int | None = None
    compute_bytes: int | None = None
    # vLLM's:
    non_torch_bytes: int | None = None  # the CUDA context, libraries
    graphs_bytes: int | None = None
    foreseen_graphs_bytes: int = 0  # what it has held back for them, and counts as activation
    pool_bytes: int | None = None  # for keys and values of all its sequences


def read_load_log(lines: Iterable[str]) -> LoadLog:
    """Of a log with several loads, the last one."""
    log = LoadLog()
    buffers: dict[str, dict[bool, int]] = {}
    for line in lines:
        if found := _BUFFER.search(line):
            on_host = bool(_HOST.fullmatch(found[1]))
            sizes = buffers.setdefault(found[2], {})
            sizes[on_host] = sizes.get(on_host, 0) + _bytes(found[3], MIB)
        else:
            _read_llama(line, log)
            _read_vllm(line, log)
    _take_buffers(buffers, log)
    return log


def _read_llama(line: str, log: LoadLog) -> None:
    if found := _SLOTS.search(line):
        slots, tokens = int(found[1]), int(found[2])
        log.context = tokens if found[3] == "true" else tokens * slots
    elif (found := _CONTEXT.search(line)) and log.context is None:
        log.context = int(found[1])


def _read_vllm(line: str, log: LoadLog) -> None:
    if found := _VLLM_WEIGHTS.search(line):
        log.weights_bytes = _bytes(found[1], GIB)
    elif found := _VLLM_POOL.search(line):
        log.pool_bytes = _bytes(found[1], GIB)
    elif found := _VLLM_FORESEEN.search(line):
        log.foreseen_graphs_bytes = _bytes(found[1], GIB)
    elif found := _VLLM_LENGTH.search(line):
        log.context = int(found[1].replace(",", ""))
    elif found := _VLLM_ACTUAL.search(line):
        consumed, activation, log.graphs_bytes = (_bytes(number, GIB) for number in found.groups())
        log.compute_bytes = max(0, activation - log.foreseen_graphs_bytes)
        log.non_torch_bytes = max(0, consumed - (log.weights_bytes or 0))


def _take_buffers(buffers: dict[str, dict[bool, int]], log: LoadLog) -> None:
    """Of the GPUs where any of it lies there; else of the RAM."""
    on_host = not any(False in sizes for sizes in buffers.values())

    def of(kind: str) -> int:
        return buffers.get(kind, {}).get(on_host, 0)

    if "model" in buffers:
        log.weights_bytes = of("model")
    if "KV" in buffers or "RS" in buffers:
        log.kv_bytes, log.state_bytes = of("KV"), of("RS")
    if "compute" in buffers:
        log.compute_bytes = of("compute") + of("output")


def _bytes(number: str, unit: int) -> int:
    return int(float(number) * unit)

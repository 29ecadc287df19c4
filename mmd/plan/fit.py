"""What a model needs, and what the machine has: enough to refuse before anybody is evicted."""

from __future__ import annotations

from mmd.machine import Machine
from mmd.registry.record import Facts

GIB = 1024**3

# The context below which a chat model is of no use; llama-server's own fitting stops there too (--fit-ctx).
LEAST_CONTEXT_TOKENS = 4096

# Compute buffers and the engine's own code at a small context; llama.cpp b11434 was seen between 90 and 480 MiB.
_COMPUTE_BYTES = GIB // 4


def least_bytes(facts: Facts, projector_bytes: int = 0) -> int:
    """Weights, projector, keys and values for a small context, and compute: the least it can run with."""
    context = min(facts.context_length or LEAST_CONTEXT_TOKENS, LEAST_CONTEXT_TOKENS)
    return facts.weights_bytes + projector_bytes + context * facts.kv_bytes_per_token + _COMPUTE_BYTES


def budget_bytes(machine: Machine) -> int:
    """Memory that models may take. llama.cpp puts what a GPU cannot hold into RAM, so both count; a tenth of the RAM,
    and at least 1 GiB, is the rest of the system's. Totals and not what is free now: who is resident will go.
    """
    vram_bytes = sum(gpu.total_bytes for gpu in machine.gpus)
    reserve_bytes = max(GIB, machine.ram_total_bytes // 10)
    return vram_bytes + max(0, machine.ram_total_bytes - reserve_bytes)

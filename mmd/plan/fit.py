"""The memory that a machine has for models, and the minimum that a model needs; compared before a swap begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmd.quantities import GIB
from mmd.registry.layout import Layers, Layout

if TYPE_CHECKING:
    from mmd.machine import Gpu, Machine
    from mmd.registry.record import Facts


# Below this context a chat model is not useful; llama-server's own fitting stops there too (--fit-ctx).
MIN_CONTEXT_TOKENS = 4096

# For a model that does not say what context it was trained for.
MAX_CONTEXT_TOKENS = 1 << 20
_CONTEXT_STEP_TOKENS = 256  # llama.cpp rounds up to it

_OUR_UNITS = "mmd-model@"
_BYTES_OF_KEY_AND_VALUE = 4  # 16 bits for each

# Compute buffers and the engine's own code at a small context; measured for llama.cpp b11434: 90 to 480 MiB.
_COMPUTE_BYTES = GIB // 4


def min_bytes(facts: Facts, projector_bytes: int = 0) -> int:
    """Return the minimum memory of a model: weights, projector, a small context and compute buffers."""
    context = min_context(facts.context_length)
    return facts.weights_bytes + projector_bytes + context * facts.kv_bytes_per_token + _COMPUTE_BYTES


def layout_of(facts: Facts) -> Layout:
    """Return the layout of the model. Without one, as in a registry of an older version or a list of the hub, return
    upper bounds and widths of 0.
    """
    if facts.layout is not None:
        return facts.layout
    width = facts.kv_bytes_per_token // _BYTES_OF_KEY_AND_VALUE
    return Layout(
        input_bytes=0,
        repeating_bytes=facts.weights_bytes,
        expert_bytes=(),
        output_bytes=0,
        copied_bytes=0,
        nextn_bytes=0,
        unloaded_bytes=0,
        float32_bytes=0,
        rotation_bytes=0,
        layer_count=1,
        hidden_size=0,
        feed_forward_size=0,
        experts_used=0,
        expert_size=0,
        attention_heads=facts.attention_heads,
        attention_size=0,
        vocabulary_size=0,
        caches=(Layers(1, width, width),) if width else (),
    )


def budget_bytes(machine: Machine) -> int:
    """Return the memory that models may use, GPUs and RAM together, for an engine that uses both.

    It counts total, not free memory: the resident model will be unloaded.
    """
    return sum(gpu.total_bytes for gpu in machine.gpus) + ram_budget_bytes(machine)


def ram_budget_bytes(machine: Machine) -> int:
    """Return the RAM that models may take: a tenth, and at least 1 GiB, is left to the system."""
    return max(0, machine.ram_total_bytes - max(GIB, machine.ram_total_bytes // 10))


def without_our_models(machine: Machine) -> Machine:
    """Return the machine as it is when no model of mmd uses its GPUs; other programs keep their memory."""
    return replace(machine, gpus=tuple(_without_our_models(gpu) for gpu in machine.gpus))


def _without_our_models(gpu: Gpu) -> Gpu:
    others = tuple(process for process in gpu.processes if not process.unit.startswith(_OUR_UNITS))
    return replace(gpu, free_bytes=available_bytes(gpu), processes=others)


def available_bytes(gpu: Gpu) -> int:
    """Return the bytes that are free on the GPU when no model of mmd uses it."""
    ours = [process.used_bytes for process in gpu.processes if process.unit.startswith(_OUR_UNITS)]
    if None in ours:  # the driver does not report it
        return gpu.total_bytes
    return min(gpu.total_bytes, gpu.free_bytes + sum(used or 0 for used in ours))


def min_context(trained: int) -> int:
    """Return the smallest useful context of a model that was trained for `trained` tokens (0: unknown)."""
    return min(trained or MIN_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS)


def largest_context(trained: int, fits: Callable[[int], bool]) -> int:
    """Return the largest context up to `trained` for which `fits` is true, in steps; 0 if no useful one is.

    If `fits` is true for a context, it must be true for every smaller one.
    """
    most, least = trained or MAX_CONTEXT_TOKENS, min_context(trained)
    if fits(most):
        return most
    if not fits(least):
        return 0
    low, high = least // _CONTEXT_STEP_TOKENS, -(-most // _CONTEXT_STEP_TOKENS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * _CONTEXT_STEP_TOKENS) else (low, middle)
    return max(least, low * _CONTEXT_STEP_TOKENS)

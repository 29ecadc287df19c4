"""What a model needs, and what the machine has: enough to refuse before anybody is evicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmd.quantities import GIB
from mmd.registry.layout import Anatomy, Layers

if TYPE_CHECKING:
    from mmd.machine import Gpu, Machine
    from mmd.registry.record import Facts


# The context below which a chat model is of no use; llama-server's own fitting stops there too (--fit-ctx).
MIN_CONTEXT_TOKENS = 4096

# Where a model does not say what it was trained for.
MAX_CONTEXT_TOKENS = 1 << 20
_CONTEXT_STEP_TOKENS = 256  # llama.cpp rounds up to it

_OUR_UNITS = "mmd-model@"
_BYTES_OF_KEY_AND_VALUE = 4  # 16 bits for each

# Compute buffers and the engine's own code at a small context; llama.cpp b11434 was seen between 90 and 480 MiB.
_COMPUTE_BYTES = GIB // 4


def min_bytes(facts: Facts, projector_bytes: int = 0) -> int:
    """Weights, projector, keys and values for a small context, and compute: the least it can run with."""
    context = min_context(facts.context_length)
    return facts.weights_bytes + projector_bytes + context * facts.kv_bytes_per_token + _COMPUTE_BYTES


def anatomy_of(facts: Facts) -> Anatomy:
    """The model's own; or all that is known of one in a registry that an older version wrote, or in a list of the hub:
    upper bounds, and widths of 0.
    """
    if facts.anatomy is not None:
        return facts.anatomy
    width = facts.kv_bytes_per_token // _BYTES_OF_KEY_AND_VALUE
    return Anatomy(
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
    """Memory that models may take: llama.cpp puts what a GPU cannot hold into RAM, so both count.

    Totals and not what is free now: who is resident will go.
    """
    return sum(gpu.total_bytes for gpu in machine.gpus) + ram_budget_bytes(machine)


def ram_budget_bytes(machine: Machine) -> int:
    """RAM that models may take: a tenth, and at least 1 GiB, is the rest of the system's."""
    return max(0, machine.ram_total_bytes - max(GIB, machine.ram_total_bytes // 10))


def without_our_models(machine: Machine) -> Machine:
    """`machine` when the models of mmd have gone from its GPUs: who is resident will go, others keep what they have."""
    return replace(machine, gpus=tuple(_without_our_models(gpu) for gpu in machine.gpus))


def _without_our_models(gpu: Gpu) -> Gpu:
    others = tuple(process for process in gpu.processes if not process.unit.startswith(_OUR_UNITS))
    return replace(gpu, free_bytes=available_bytes(gpu), processes=others)


def available_bytes(gpu: Gpu) -> int:
    """What a model finds there then."""
    ours = [process.used_bytes for process in gpu.processes if process.unit.startswith(_OUR_UNITS)]
    if None in ours:  # the driver does not tell
        return gpu.total_bytes
    return min(gpu.total_bytes, gpu.free_bytes + sum(used or 0 for used in ours))


def min_context(trained: int) -> int:
    """The smallest context that is of use for a model trained for so many tokens, 0 where that is not known."""
    return min(trained or MIN_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS)


def largest_context(trained: int, fits: Callable[[int], bool]) -> int:
    """The largest up to `trained` tokens for which `fits` holds, in steps; 0 where it does not for the least of use.

    What holds for a context must hold for every smaller one.
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

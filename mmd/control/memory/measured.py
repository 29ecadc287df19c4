"""What a running engine takes, laid out in the components of an estimate."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.breakdown import Breakdown, correction
from mmd.plan.estimate import Components
from mmd.plan.load_log import LoadLog


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to go by."""

    gpus: int  # that it uses; 0 on the CPU
    total_bytes: int | None  # of its processes, on the GPUs or in RAM; None where the driver does not tell
    log: LoadLog
    told: Breakdown | None  # by llama-server, of the same model and context
    predicted: Components  # for the context that it has


_Sizes = dict[str, int | None]


def measured(seen: Seen, *, is_vllm: bool) -> dict[str, int]:
    """As `starts.Start.measured` has it: what something tells, and no more."""
    on_cpu = _of_vllm_on_cpu if is_vllm else _of_llama
    on_gpu = _of_vllm if is_vllm else _of_llama
    sizes = on_gpu(seen) if seen.gpus else on_cpu(seen)
    return {name: size_bytes for name, size_bytes in sizes.items() if size_bytes is not None}


def _of_llama(seen: Seen) -> _Sizes:
    sizes = _told(seen)
    for name in ("weights_bytes", "kv_bytes", "state_bytes", "compute_bytes"):
        if (logged := getattr(seen.log, name)) is not None:
            sizes[name] = logged
    predicted = seen.predicted
    model_bytes = sum(
        size_bytes
        for size_bytes in (
            sizes.get("weights_bytes") or predicted.weights_bytes,
            sizes.get("kv_bytes") or predicted.kv_bytes,
            sizes.get("state_bytes") or predicted.state_bytes,
            sizes.get("compute_bytes") or predicted.compute_bytes,
            predicted.projector_bytes,
        )
    )
    if seen.total_bytes is None or seen.total_bytes < model_bytes:
        return sizes  # layers that are in RAM, or pages that have not been read yet
    overhead_bytes = seen.total_bytes - model_bytes
    each = {"context_bytes": overhead_bytes // seen.gpus} if seen.gpus else {"process_bytes": overhead_bytes}
    return {**sizes, "overhead_bytes": overhead_bytes, "total_bytes": seen.total_bytes, **each}


def _told(seen: Seen) -> _Sizes:
    predicted, told = seen.predicted, seen.told
    if told is None or told.has_devices != bool(seen.gpus):
        return {}
    found = correction(told.decisive, predicted, len(told.rows))
    return {
        "weights_bytes": predicted.weights_bytes + found.weights_bytes,
        "kv_bytes": predicted.kv_bytes + found.kv_bytes,
        "state_bytes": predicted.state_bytes,
        "compute_bytes": round(predicted.compute_bytes * found.compute_factor),
    }


def _of_vllm(seen: Seen) -> _Sizes:
    """Its log tells the same of each GPU. What its pool holds beyond one context is for others, and not counted."""
    log, gpus = seen.log, seen.gpus
    weights, activation, beside, graphs = log.weights_bytes, log.compute_bytes, log.non_torch_bytes, log.graphs_bytes
    sizes: _Sizes = {
        "weights_bytes": None if weights is None else weights * gpus,
        "compute_bytes": None if activation is None else activation * gpus,
        "non_torch_bytes": beside,
        "graphs_bytes": graphs,
    }
    if None in (weights, activation, beside, graphs, log.pool_bytes, seen.total_bytes):
        return sizes
    assert weights is not None and activation is not None and beside is not None and graphs is not None
    assert log.pool_bytes is not None and seen.total_bytes is not None
    context_bytes = max(0, seen.total_bytes // gpus - weights - beside - graphs - log.pool_bytes)
    overhead_bytes = (context_bytes + beside + graphs) * gpus
    kept_bytes = seen.predicted.kv_bytes + seen.predicted.state_bytes
    total_bytes = (weights + activation) * gpus + overhead_bytes + kept_bytes
    return {**sizes, "overhead_bytes": overhead_bytes, "total_bytes": total_bytes, "context_bytes": context_bytes}


def _of_vllm_on_cpu(seen: Seen) -> _Sizes:
    """Its weights are copied, and its pool is touched only as it fills."""
    if seen.total_bytes is None:
        return {}
    predicted = seen.predicted
    process_bytes = max(0, seen.total_bytes - predicted.weights_bytes)
    untouched_bytes = predicted.kv_bytes + predicted.state_bytes + predicted.compute_bytes
    return {
        "overhead_bytes": process_bytes,
        "total_bytes": predicted.weights_bytes + process_bytes + untouched_bytes,
        "process_bytes": process_bytes,
    }

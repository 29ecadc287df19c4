"""Parse the memory that a load took from llama.cpp's log, in its old and its new wording."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mmd.plan.breakdown import correction
from mmd.plan.last_words import LogStyle
from mmd.plan.measurement import LoadLog, Observation, Sizes
from mmd.quantities import MIB

# "0.00.007.173 E "
LOG_STYLE = LogStyle(prefix=re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} [A-Z] "))

# "load_tensors:        CUDA0 model buffer size =  4403.49 MiB"; buffers in RAM do not count if there is one on a GPU.
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output)\s+buffer size\s*=\s*([\d.]+) MiB")
_HOST = re.compile(r"CPU|CPU_\w+|AMX|\S*_Host\b")
# "srv load_model: initializing, n_slots = 4, n_ctx_slot = 8192, kv_unified = 'true'"
_SLOTS = re.compile(r"n_slots = (\d+), n_ctx_slot = (\d+), kv_unified = '(\w+)'")
_CONTEXT = re.compile(r"\bn_ctx\s*=\s*(\d+)$")


def read_load_log(lines: Iterable[str]) -> LoadLog:
    """Return the memory that the last load in the log took."""
    context: int | None = None
    buffers: dict[str, dict[bool, int]] = {}
    for line in lines:
        if found := _BUFFER.search(line):
            on_host = bool(_HOST.fullmatch(found[1]))
            sizes = buffers.setdefault(found[2], {})
            sizes[on_host] = sizes.get(on_host, 0) + int(float(found[3]) * MIB)
        elif found := _SLOTS.search(line):
            slots, tokens = int(found[1]), int(found[2])
            context = tokens if found[3] == "true" else tokens * slots
        elif (found := _CONTEXT.search(line)) and context is None:
            context = int(found[1])
    # Count the GPUs' buffers if there are any; else those in RAM.
    on_host = not any(False in sizes for sizes in buffers.values())

    def size_of(*kinds: str) -> int | None:
        if kinds[0] not in buffers:
            return None
        return sum(buffers.get(kind, {}).get(on_host, 0) for kind in kinds)

    has_cache = bool(buffers.keys() & {"KV", "RS"})
    return LoadLog(
        context=context,
        weights_bytes=size_of("model"),
        kv_bytes=(size_of("KV") or 0) if has_cache else None,
        state_bytes=(size_of("RS") or 0) if has_cache else None,
        compute_bytes=size_of("compute", "output"),
    )


def measure(observation: Observation) -> Sizes:
    """Return the measured memory of a start, by component of an estimate: only what was reported."""
    sizes = _reported(observation)
    for name in ("weights_bytes", "kv_bytes", "state_bytes", "compute_bytes"):
        if (logged := getattr(observation.log, name)) is not None:
            sizes[name] = logged
    predicted = observation.predicted
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
    if observation.total_bytes is None or observation.total_bytes < model_bytes:
        return sizes  # layers that are in RAM, or pages that have not been read yet
    overhead_bytes = observation.total_bytes - model_bytes
    each = (
        {"context_bytes": overhead_bytes // observation.gpus} if observation.gpus else {"process_bytes": overhead_bytes}
    )
    return {**sizes, "overhead_bytes": overhead_bytes, "total_bytes": observation.total_bytes, **each}


def _reported(observation: Observation) -> Sizes:
    predicted, breakdown = observation.predicted, observation.breakdown
    if breakdown is None or breakdown.has_devices != bool(observation.gpus):
        return {}
    found = correction(breakdown.decisive, predicted, len(breakdown.rows))
    return {
        "weights_bytes": predicted.weights_bytes + found.weights_bytes,
        "kv_bytes": predicted.kv_bytes + found.kv_bytes,
        "state_bytes": predicted.state_bytes,
        "compute_bytes": round(predicted.compute_bytes * found.compute_factor),
    }

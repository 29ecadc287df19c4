"""Parse the memory that a load took from vLLM's log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mmd.plan.last_words import LogStyle
from mmd.plan.measurement import LoadLog, Observation, Sizes
from mmd.quantities import GIB

LOG_STYLE = LogStyle(
    # "(EngineCore pid=9) ERROR 11-21 05:42:12 [core.py:1510] "
    prefix=re.compile(r"(?:\([\w-]+ pid=\d+\) )?(?:(?P<level>[A-Z]{4,8}) \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?"),
    value_names={"--tool-call-parser": "tool call parser", "--reasoning-parser": "reasoning parser"},
    measured_too_early=("less than desired GPU memory utilization",),
)

_WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB")
_ACTUAL = re.compile(
    r"Actual usage is ([\d.]+) GiB for consumed memory \(weights \+ non-torch\), ([\d.]+) GiB for peak activation, "
    r"and ([\d.]+) GiB for CUDAGraph memory"
)
_ESTIMATED_GRAPHS = re.compile(r"CUDA graph pool memory: [\d.]+ GiB \(actual\), ([\d.]+) GiB \(estimated\)")
_POOL = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_LENGTH = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request")


@dataclass(frozen=True, slots=True)
class VllmLoadLog(LoadLog):
    """Bytes on each GPU. It logs a pool for all sequences instead of the keys and values of one context."""

    non_torch_bytes: int | None = None  # the CUDA context, libraries
    graphs_bytes: int | None = None
    pool_bytes: int | None = None  # for keys and values of all its sequences


def read_load_log(lines: Iterable[str]) -> VllmLoadLog:
    """Return the memory that the last load in the log took."""
    context: int | None = None
    weights_bytes = pool_bytes = compute_bytes = non_torch_bytes = graphs_bytes = None
    reserved_graphs_bytes = 0  # held back for graphs, and counted as activation
    for line in lines:
        if found := _WEIGHTS.search(line):
            weights_bytes = _bytes(found[1])
        elif found := _POOL.search(line):
            pool_bytes = _bytes(found[1])
        elif found := _ESTIMATED_GRAPHS.search(line):
            reserved_graphs_bytes = _bytes(found[1])
        elif found := _LENGTH.search(line):
            context = int(found[1].replace(",", ""))
        elif found := _ACTUAL.search(line):
            consumed_bytes, activation_bytes, graphs_bytes = map(_bytes, found.groups())
            compute_bytes = max(0, activation_bytes - reserved_graphs_bytes)
            non_torch_bytes = max(0, consumed_bytes - (weights_bytes or 0))
    return VllmLoadLog(
        context=context,
        weights_bytes=weights_bytes,
        compute_bytes=compute_bytes,
        non_torch_bytes=non_torch_bytes,
        graphs_bytes=graphs_bytes,
        pool_bytes=pool_bytes,
    )


def measure(observation: Observation) -> Sizes:
    """Return the measured memory of a start, by component of an estimate: only what was reported."""
    return _on_gpus(observation) if observation.gpus else _on_cpu(observation)


def _on_gpus(observation: Observation) -> Sizes:
    """The log says the same of each GPU. What the pool holds beyond one context is for others, and not counted."""
    log, gpus = observation.log, observation.gpus
    assert isinstance(log, VllmLoadLog)
    weights, activation, beside, graphs = log.weights_bytes, log.compute_bytes, log.non_torch_bytes, log.graphs_bytes
    sizes: Sizes = {
        "weights_bytes": None if weights is None else weights * gpus,
        "compute_bytes": None if activation is None else activation * gpus,
        "non_torch_bytes": beside,
        "graphs_bytes": graphs,
    }
    if None in (weights, activation, beside, graphs, log.pool_bytes, observation.total_bytes):
        return sizes
    assert weights is not None and activation is not None and beside is not None and graphs is not None
    assert log.pool_bytes is not None and observation.total_bytes is not None
    context_bytes = max(0, observation.total_bytes // gpus - weights - beside - graphs - log.pool_bytes)
    overhead_bytes = (context_bytes + beside + graphs) * gpus
    cache_bytes = observation.predicted.kv_bytes + observation.predicted.state_bytes
    total_bytes = (weights + activation) * gpus + overhead_bytes + cache_bytes
    return {**sizes, "overhead_bytes": overhead_bytes, "total_bytes": total_bytes, "context_bytes": context_bytes}


def _on_cpu(observation: Observation) -> Sizes:
    """Its weights are copied, and its pool takes memory only as it fills."""
    if observation.total_bytes is None:
        return {}
    predicted = observation.predicted
    process_bytes = max(0, observation.total_bytes - predicted.weights_bytes)
    untouched_bytes = predicted.kv_bytes + predicted.state_bytes + predicted.compute_bytes
    return {
        "overhead_bytes": process_bytes,
        "total_bytes": predicted.weights_bytes + process_bytes + untouched_bytes,
        "process_bytes": process_bytes,
    }


def _bytes(gib: str) -> int:
    return int(float(gib) * GIB)

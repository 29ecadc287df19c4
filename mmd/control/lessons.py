"""What the starts on this machine have taught about it: medians over all models, for those that were never seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mmd.control.starts import Start
from mmd.plan.constants import Constants

_NEWEST = 20  # so that an update of a driver or an engine is followed
_LEAST_ERROR_BYTES = 16 * 1024**2
_FEW = 0.5  # the part of the usual error that is left after one start; it becomes smaller with more


def constants_from(starts: Sequence[Start], *, gpu: str, engine: str) -> Constants:
    """The defaults, and what is known better by now for this GPU and driver, and this version of an engine."""
    here = [start for start in starts if start.gpu == gpu][-_NEWEST:]
    same = [start for start in here if start.engine == engine]
    found = _overhead(Constants(), here, on_gpu=bool(gpu), is_vllm=engine.startswith("vllm"))
    return _activation(found, same) if engine.startswith("vllm") else _compute(found, same)


def _overhead(constants: Constants, starts: Sequence[Start], *, on_gpu: bool, is_vllm: bool) -> Constants:
    """Beside what models need. Of the driver and its libraries, so that another version of the engine tells of it too;
    vLLM's and llama.cpp's differ.
    """
    alike = [start for start in starts if start.engine.startswith("vllm") is is_vllm]
    if on_gpu and is_vllm:
        return _replaced(constants, "non_torch_bytes", "", [start.measured.get("non_torch_bytes") for start in alike])
    name = "context" if on_gpu else "vllm_process" if is_vllm else "process"
    measured = [start.measured.get("overhead_bytes") for start in alike]
    return _replaced(constants, f"{name}_bytes", f"{name}_error_bytes", measured)


def _compute(constants: Constants, starts: Sequence[Start]) -> Constants:
    factors = _factors(starts)
    if not factors:
        return constants
    factor, error = _median(factors), _spread(factors) / _median(factors)
    return replace(constants, compute_factor=factor, compute_error=max(error, constants.compute_error * _left(factors)))


def _activation(constants: Constants, starts: Sequence[Start]) -> Constants:
    constants = _replaced(
        constants, "graphs_bytes", "graphs_error_bytes", [start.measured.get("graphs_bytes") for start in starts]
    )
    factors = _factors(starts)
    if not factors:
        return constants
    return replace(
        constants,
        activation_bytes_per_logit=constants.activation_bytes_per_logit * _median(factors),
        activation_error=max(_spread(factors) / _median(factors), constants.activation_error * _left(factors)),
    )


def _factors(starts: Sequence[Start]) -> list[float]:
    """How much more than its formula each start needed for computing."""
    return [
        start.measured["compute_bytes"] * start.compute_factor / start.predicted["compute_bytes"]
        for start in starts
        if start.measured.get("compute_bytes") and start.predicted.get("compute_bytes")
    ]


def _replaced(constants: Constants, field: str, error_field: str, measured: Iterable[int | None]) -> Constants:
    """With the median of what was measured, where anything was."""
    known = [size for size in measured if size is not None]
    if not known:
        return constants
    changed = {field: round(_median(known))}
    if error_field:
        usual = getattr(constants, error_field) * _left(known)
        changed[error_field] = round(max(_LEAST_ERROR_BYTES, _spread(known), usual))
    return replace(constants, **changed)


def _left(known: Sequence[float]) -> float:
    return float(_FEW / len(known))


def _spread(known: Sequence[float]) -> float:
    middle = _median(known)
    return max(abs(size - middle) for size in known)


def _median(known: Sequence[float]) -> float:
    # statistics takes 6 ms to import.
    ordered, half = sorted(known), len(known) // 2
    return ordered[half] if len(known) % 2 else (ordered[half - 1] + ordered[half]) / 2

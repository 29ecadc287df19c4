"""What the starts on this machine have taught about it: medians over all models, for those that were never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmd.control.memory.starts_log import StartRecord
from mmd.plan.constants import Constants
from mmd.quantities import GIB, MIB, median

_NEWEST = 20  # so that an update of a driver or an engine is followed
_LEAST_ERROR_BYTES = 16 * MIB
# What no GPU, driver or library takes was measured wrong: a driver that counted somebody else's, a damaged record.
_MOST_MEASURED_BYTES = 8 * GIB
_COMPUTE_FACTORS = (1 / 64, 64.0)
_LEFT_AFTER_ONE = 0.5  # of the usual error; less with every further start

# What starts measure -> the constant that it is, and that one's error.
_LLAMA = (("context_bytes", "context_bytes", "context_error_bytes"), ("process_bytes",) * 2 + ("process_error_bytes",))
_VLLM = (
    ("context_bytes", "context_bytes", "context_error_bytes"),
    ("non_torch_bytes", "non_torch_bytes", ""),
    ("graphs_bytes", "graphs_bytes", "graphs_error_bytes"),
    ("process_bytes", "vllm_process_bytes", "vllm_process_error_bytes"),
)


def constants_from(starts: Sequence[StartRecord], *, gpu: str, engine: str) -> Constants:
    """The defaults, and what is known better by now: of this GPU and driver from all versions of the engine, and of how
    it computes from this one.
    """
    name = engine.partition(" ")[0]
    here = [start for start in starts if start.gpu == gpu and start.engine.partition(" ")[0] == name][-_NEWEST:]
    found = Constants()
    for measured, constant, error in _VLLM if name == "vllm" else _LLAMA:
        known = [start.measured[measured] for start in here if measured in start.measured]
        found = _with_median(found, constant, error, known)
    factors = [start.compute_factor_measured for start in here if start.engine == engine]
    least, most = _COMPUTE_FACTORS
    return _with_factor(found, [one for one in factors if one and least <= one <= most], is_vllm=name == "vllm")


def is_believable(start: StartRecord) -> bool:
    """Whether what it teaches can be: an absurd constant would make every model too large."""
    taught = {measured for measured, _, _ in (*_LLAMA, *_VLLM)}
    return all(start.measured.get(name, 0) <= _MOST_MEASURED_BYTES for name in taught)


def compute_factor(constants: Constants) -> float:
    """How much more than by its formula computing is reckoned with, for either engine."""
    usual = Constants()
    return constants.compute_factor * constants.activation_bytes_per_logit / usual.activation_bytes_per_logit


def _with_median(constants: Constants, field: str, error_field: str, known: Sequence[int]) -> Constants:
    if not known:
        return constants
    changed = {field: round(median(known))}
    if error_field:
        left_bytes = getattr(constants, error_field) * _LEFT_AFTER_ONE / len(known)
        changed[error_field] = round(max(_LEAST_ERROR_BYTES, _spread(known), left_bytes))
    return replace(constants, **changed)


def _with_factor(constants: Constants, known: Sequence[float], *, is_vllm: bool) -> Constants:
    """How much more than their formula computing takes."""
    if not known:
        return constants
    factor, left = median(known), _LEFT_AFTER_ONE / len(known)
    error = _spread(known) / factor
    if is_vllm:
        return replace(
            constants,
            activation_bytes_per_logit=constants.activation_bytes_per_logit * factor,
            activation_error=max(error, constants.activation_error * left),
        )
    return replace(
        constants,
        compute_factor=constants.compute_factor * factor,
        compute_error=max(error, constants.compute_error * left),
        compute_error_bytes=round(constants.compute_error_bytes * left),
    )


def _spread(known: Sequence[float]) -> float:
    middle = median(known)
    return max(abs(size - middle) for size in known)

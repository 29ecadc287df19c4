"""Constants measured on this machine: medians over the starts of all models, for models that were never started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

from mmd.control.memory.starts_log import StartRecord
from mmd.engines import all_engines
from mmd.plan.constants import Constants
from mmd.quantities import GIB, MIB, median

_NEWEST = 20  # so that an update of a driver or an engine is followed
_MIN_ERROR_BYTES = 16 * MIB
# A larger value is a wrong measurement: a driver that counted another program, or a damaged record.
_MAX_MEASURED_BYTES = 8 * GIB
_COMPUTE_FACTORS = (1 / 64, 64.0)
_LEFT_AFTER_ONE = 0.5  # share of the default error after one start; less with each further start


def constants_from(starts: Sequence[StartRecord], *, gpu: str, engine: str, defaults: Constants) -> Constants:
    """Return the `defaults` of an engine, replaced by the medians of the newest starts on these GPUs and driver.

    `gpu` is as in a start's record; starts on some of its GPUs count. `engine` is its title. Memory beside the model is
    taken from starts of all its versions, `compute_factor` from this one's.
    """
    name = engine.partition(" ")[0]
    here = [start for start in starts if is_among(start.gpu, gpu) and start.engine.partition(" ")[0] == name][-_NEWEST:]
    found = defaults
    for constant, error in defaults.MEASURED.items():
        known = [start.measured[constant] for start in here if constant in start.measured]
        found = _with_median(found, constant, error, known)
    factors = [start.compute_factor_measured for start in here if start.engine == engine]
    least, most = _COMPUTE_FACTORS
    return _with_factor(found, [one for one in factors if one and least <= one <= most])


@lru_cache(maxsize=64)
def is_among(gpu: str, others: str) -> bool:
    """True if a start on `gpu`, GPUs and driver, was on some of these GPUs, with the same driver."""
    *uuids, driver = gpu.split(",")
    *all_uuids, same_driver = others.split(",")
    return driver == same_driver and bool(uuids) == bool(all_uuids) and {*uuids} <= {*all_uuids}


def is_believable(start: StartRecord) -> bool:
    """Return False if a constant that it measured is absurd: it would make every model too large."""
    return all(start.measured.get(name, 0) <= _MAX_MEASURED_BYTES for name in _measured_constants())


@cache
def _measured_constants() -> frozenset[str]:
    return frozenset(name for engine in all_engines() for name in engine.constants.MEASURED)


def _with_median(constants: Constants, field: str, error_field: str, known: Sequence[int]) -> Constants:
    if not known:
        return constants
    changed = {field: round(median(known))}
    if error_field:
        left_bytes = getattr(constants, error_field) * _LEFT_AFTER_ONE / len(known)
        changed[error_field] = round(max(_MIN_ERROR_BYTES, _spread(known), left_bytes))
    return replace(constants, **changed)


def _with_factor(constants: Constants, known: Sequence[float]) -> Constants:
    """Replace `compute_factor`: how much more memory computing takes than its formula says."""
    if not known:
        return constants
    factor, left = median(known), _LEFT_AFTER_ONE / len(known)
    return replace(
        constants,
        compute_factor=constants.compute_factor * factor,
        compute_error=max(_spread(known) / factor, constants.compute_error * left),
        compute_error_bytes=round(constants.compute_error_bytes * left),
    )


def _spread(known: Sequence[float]) -> float:
    middle = median(known)
    return max(abs(size - middle) for size in known)

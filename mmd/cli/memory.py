"""Estimates as text for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mmd.quantities import size_text

if TYPE_CHECKING:
    from mmd.plan.estimate import Estimate

_SOURCES = {
    "listed": "from its size only",
    "header": "from its headers",
    "engine": "from its engine",
    "measured": "measured here",
}


def for_json(estimate: Estimate) -> Estimate:
    """Return the estimate that `--json` prints: with the share on the GPU to three digits."""
    return replace(estimate, on_gpu=round(estimate.on_gpu, 3))


def needs_text(estimate: Estimate) -> str:
    """Return the memory that a model needs of what there is, and whether it fits."""
    source = _SOURCES[estimate.tier]
    needs = f"{size_text(estimate.needs_bytes)} ± {size_text(estimate.error_bytes)}"
    return f"{needs} of {size_text(estimate.has_bytes)}, {source}: {_verdict(estimate)}"


def _verdict(estimate: Estimate) -> str:
    left_bytes = estimate.has_bytes - estimate.needs_bytes
    if left_bytes >= 0 and estimate.fits:
        return f"fits, {size_text(left_bytes)} left"
    if estimate.fits:
        return f"runs slowly, {estimate.on_gpu:.0%} in GPU memory and {size_text(estimate.ram_bytes)} in RAM"
    return "does not fit"


def parts_text(estimate: Estimate) -> str:
    """Return the components of the memory, without those that are 0."""
    parts = estimate.components
    sizes = (
        ("weights", parts.weights_bytes, ""),
        ("KV", parts.kv_bytes, f" @{estimate.context}"),
        ("state", parts.state_bytes, ""),
        ("compute", parts.compute_bytes, ""),
        ("mmproj", parts.projector_bytes, ""),
        ("overhead", parts.overhead_bytes, ""),
    )
    shown = " · ".join(f"{name} {size_text(size_bytes)}{note}" for name, size_bytes, note in sizes if size_bytes)
    return f"{shown}; {_limit(estimate)}"


def _limit(estimate: Estimate) -> str:
    return f"max context {estimate.max_context}" if estimate.max_context else "no context fits"


def suggestion_texts(estimate: Estimate) -> list[str]:
    return [f"{change.change} ({size_text(change.needs_bytes)}): {change.command}" for change in estimate.suggestions]

"""The installed engines, with their places in mmd.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmd import engines

if TYPE_CHECKING:
    from mmd.plan.engine import Installed
    from mmd.settings import Settings


def installed_engines(settings: Settings) -> tuple[Installed, ...]:
    """Return them best first. Raises EngineMissing if a configured one does not work."""
    return engines.installed(
        {engine.name: place for engine in engines.all_engines() if (place := settings.engines.place(engine.name))}
    )


def token_counters() -> Mapping[str, tuple[str, ...]]:
    """Return the names of all engines' counters of tokens, by direction: "in" and "out"."""
    known = engines.all_engines()
    # Engines of a family have the same counters: each name once, or its value would be added twice.
    return {
        "in": tuple({name: None for engine in known for name in engine.input_token_counters}),
        "out": tuple({name: None for engine in known for name in engine.output_token_counters}),
    }

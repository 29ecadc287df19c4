"""The installed engines, with their places in mmd.toml."""

from __future__ import annotations

from mmd import engines
from mmd.plan.engine import Installed
from mmd.settings import Settings


def installed_engines(settings: Settings) -> tuple[Installed, ...]:
    """Return them best first. Raises EngineMissing if a configured one does not work."""
    return engines.installed(
        {engine.name: place for engine in engines.all_engines() if (place := settings.engines.place(engine.name))}
    )

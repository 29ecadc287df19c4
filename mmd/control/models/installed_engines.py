"""The engines that are installed here, found where mmd.toml says where they are."""

from __future__ import annotations

from mmd import engines
from mmd.plan.engine import Installed
from mmd.settings import Settings


def installed_engines(settings: Settings) -> tuple[Installed, ...]:
    """Best first; raises EngineMissing where one that was asked for does not work."""
    return engines.installed(
        {engine.name: place for engine in engines.all_engines() if (place := settings.engines.place(engine.name))}
    )

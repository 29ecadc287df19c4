"""The engines that are installed here, found where mmd.toml says where they are."""

from __future__ import annotations

from mmd import engines
from mmd.plan.launch import Installed
from mmd.settings import Settings

_PLACED = ("llama-server", "vllm")


def installed_engines(settings: Settings) -> tuple[Installed, ...]:
    """Best first; raises EngineMissing where one that was asked for does not work."""
    return engines.installed({name: place for name in _PLACED if (place := settings[f"engines.{name}"])})

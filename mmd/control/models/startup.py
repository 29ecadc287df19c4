"""Startup modes of models, stored in mmd.toml only."""

from __future__ import annotations

from collections.abc import Mapping

from mmd.plan.boot import Startup, default_model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings


def startups(settings: Settings) -> Mapping[str, Startup]:
    """Return the startup mode of each model with a table in mmd.toml."""
    return {model_id: Startup(settings.model(model_id).startup) for model_id in settings.models}


def startup_of(model_id: str) -> Startup:
    """Return a model's startup mode. Raises NoSuchModel, and WrongUsage if mmd.toml is damaged."""
    return Startup(read_settings().model(Registry().get(model_id).id).startup)


def default_of(settings: Settings) -> str | None:
    """Return the default model, or None. Raises WrongUsage if there are two."""
    return default_model(startups(settings))


def set_startup(model_id: str, startup: Startup) -> tuple[str, ...]:
    """Set a model's startup mode. Returns the models that are no longer the default because of it.

    A model that is in mmd.toml but no longer registered can still be disabled.
    Raises NoSuchModel, and what `set_for_models` raises.
    """
    from mmd.settings_edit import set_for_models

    if startup is not Startup.DISABLED or model_id not in read_settings().models:
        Registry().get(model_id)
    former = _former_defaults(except_id=model_id) if startup is Startup.ACTIVE else ()
    set_for_models("startup", dict.fromkeys(former, Startup.DISABLED.value) | {model_id: startup.value})
    return former


def set_no_default() -> tuple[str, ...]:
    """Remove the default. Returns the models that were the default."""
    from mmd.settings_edit import set_for_models

    former = _former_defaults(except_id=None)
    set_for_models("startup", dict.fromkeys(former, Startup.DISABLED.value))
    return former


def _former_defaults(*, except_id: str | None) -> tuple[str, ...]:
    now = startups(read_settings())
    return tuple(model_id for model_id, mode in now.items() if mode is Startup.ACTIVE and model_id != except_id)

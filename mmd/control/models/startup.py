"""What is loaded at boot: startup modes of models and setups, and the default, stored in mmd.toml only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmd.control.models.setups import select
from mmd.plan.boot import LAST, Default, DefaultKind, Startup, defaults, only_default
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings

if TYPE_CHECKING:
    from mmd.settings_edit import Key, Value


def startups(settings: Settings) -> Mapping[str, Startup]:
    """Return the startup mode of each model with a table in mmd.toml."""
    return {model_id: Startup(table.startup) for model_id, table in settings.models.items()}


def startup_of(model_id: str) -> Startup:
    """Return a model's startup mode. Raises NoSuchModel, and WrongUsage if mmd.toml is damaged."""
    return Startup(read_settings().model(Registry().get(model_id).id).startup)


def default_of(settings: Settings) -> Default | None:
    """Return the default, or None. Raises WrongUsage if there are two."""
    return only_default(_defaults(settings))


def set_startup(model_id: str, startup: Startup) -> tuple[Default, ...]:
    """Set a model's startup mode. Returns what is no longer the default because of it.

    A model that is in mmd.toml but no longer registered can still be disabled.
    Raises NoSuchModel, and what `edit_settings` raises.
    """
    if startup is not Startup.DISABLED or model_id not in read_settings().models:
        Registry().get(model_id)
    former = _defaults(read_settings()) if startup is Startup.ACTIVE else ()
    return _set({("models", model_id, "startup"): startup.value}, former, Default(model_id, DefaultKind.MODEL))


def set_default(name: str) -> tuple[Default, ...]:
    """Make a model or setup the default. Returns what was the default before.

    Raises NoSuchModel, and what `edit_settings` raises.
    """
    selected = select(name)
    if selected.setup is None:
        return set_startup(selected.name, Startup.ACTIVE)
    now = Default(selected.name, DefaultKind.SETUP)
    return _set({("setups", selected.name, "startup"): Startup.ACTIVE.value}, _defaults(read_settings()), now)


def set_restore_last() -> tuple[Default, ...]:
    """Make what is resident before a boot the default. Returns what was the default before."""
    return _set({("boot", "restore_last"): True}, _defaults(read_settings()), LAST)


def set_no_default() -> tuple[Default, ...]:
    """Remove the default. Returns what was the default before."""
    return _set({}, _defaults(read_settings()), None)


def _set(values: Mapping[Key, Value], former: tuple[Default, ...], now: Default | None) -> tuple[Default, ...]:
    """Set these values, and end the other defaults. Returns those."""
    from mmd.settings_edit import edit_settings

    others = tuple(one for one in former if one != now)
    edit_settings({_key(one): _ended(one) for one in others} | dict(values))
    return others


def _defaults(settings: Settings) -> tuple[Default, ...]:
    setups = {name: Startup(table.startup) for name, table in settings.setups.items()}
    return defaults(startups(settings), setups, restore_last=settings.boot.restore_last)


def _key(default: Default) -> Key:
    if default.kind is DefaultKind.LAST:
        return ("boot", "restore_last")
    return (f"{default.kind}s", default.name, "startup")


def _ended(default: Default) -> Value:
    return False if default.kind is DefaultKind.LAST else Startup.DISABLED.value

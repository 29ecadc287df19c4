"""Read the idle times and pins of mmd.toml, and since when models have been resident or asleep."""

from __future__ import annotations

import math
from collections.abc import Collection

from mmd.control.state.resident_since import resident_since_us
from mmd.control.state.sleep_record import asleep_since
from mmd.files import ReloadOnChange
from mmd.paths import config_file
from mmd.plan.idle import LoadedModel, Rules
from mmd.plan.residency import Residency, residency
from mmd.settings import Settings, read_settings
from mmd.units.bus import Manager
from mmd.units.watch import Pairs


def rules_of(model_id: str, settings: Settings) -> Rules:
    """Return the idle times of a model. Its own table has precedence over [gateway]."""
    table, gateway = settings.model(model_id), settings.gateway

    def seconds(own: int | None, common: int) -> float:
        return (common if own is None else own) or math.inf

    return Rules(
        seconds(table.idle_sleep_seconds, gateway.idle_sleep_seconds),
        seconds(table.idle_stop_seconds, gateway.idle_stop_seconds),
        pinned=table.pinned,
    )


def pinned_models(settings: Settings) -> frozenset[str]:
    return frozenset(model_id for model_id in settings.models if settings.model(model_id).pinned)


class IdleRules:
    """The rules in mmd.toml, read again when it changes. While it is damaged, the previous rules stay in force."""

    def __init__(self, settings: Settings) -> None:
        keeps = "idle times and pinned models"
        self._file = ReloadOnChange(config_file(), read_settings, initial=settings, keeps=keeps)
        self._settings = settings
        self._pinned = pinned_models(settings)

    def rules_of(self, model_id: str) -> Rules:
        self._refresh()
        return rules_of(model_id, self._settings)

    def pinned(self) -> frozenset[str]:
        self._refresh()
        return self._pinned

    def _refresh(self) -> None:
        settings = self._file.current()
        if settings is not self._settings:
            self._settings, self._pinned = settings, pinned_models(settings)


async def loaded_models(
    manager: Manager, pairs: Pairs, idleness: IdleRules, *, keep_alive: Collection[str]
) -> tuple[LoadedModel, ...]:
    """Return the resident and sleeping models that have an idle time or are in `keep_alive`.

    Each comes with the time of its last state change on the monotonic clock. systemd and the hooks record these times,
    so a gateway that has just started has them, too.
    """
    found: list[LoadedModel] = []
    for model_id, pair in pairs.items():
        here = residency(pair)
        if here not in (Residency.RESIDENT, Residency.ASLEEP):
            continue
        rules, is_asleep = idleness.rules_of(model_id), here is Residency.ASLEEP
        if rules.seconds(is_asleep=is_asleep) == math.inf and model_id not in keep_alive:
            continue  # saves a call to systemd, which would delay swaps
        since = asleep_since(model_id) if is_asleep else await _resident_since(manager, model_id)
        if since is not None:
            found.append(LoadedModel(model_id, is_asleep, since, rules))
    return tuple(found)


async def _resident_since(manager: Manager, model_id: str) -> float | None:
    entered_us = await resident_since_us(manager, model_id, "ActiveEnterTimestampMonotonic")
    return None if entered_us is None else entered_us / 1_000_000

"""What is loaded when the machine comes up: the models that are to sleep, one after another, then the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmd.errors import WrongUsage
from mmd.plan.residency import Residency


class Startup(StrEnum):
    """What becomes of a model when the machine comes up."""

    DISABLED = "disabled"
    SLEEP = "sleep"  # loaded and put to sleep, so that the first request for it wakes it
    ACTIVE = "active"  # the default model


@dataclass(frozen=True, slots=True)
class Order:
    """The models of a boot, in turn."""

    sleepers: tuple[str, ...]
    default: str | None
    unknown: tuple[str, ...]  # in mmd.toml, and not registered (any more)


def order(startups: Mapping[str, Startup], registered: Sequence[str]) -> Order:
    """Sleepers come in the registry's order. Raises WrongUsage where two models are to be the default."""
    sleepers = tuple(model_id for model_id in registered if startups.get(model_id) is Startup.SLEEP)
    wanted = {model_id for model_id, startup in startups.items() if startup is not Startup.DISABLED}
    return Order(sleepers, default_model(startups), tuple(sorted(wanted - set(registered))))


def default_model(startups: Mapping[str, Startup]) -> str | None:
    """The one model that is `active` at startup. Raises WrongUsage where there are two."""
    active = sorted(model_id for model_id, startup in startups.items() if startup is Startup.ACTIVE)
    if len(active) > 1:
        raise WrongUsage(
            f'mmd.toml has two defaults: {" and ".join(active)} both say startup = "active"',
            hint=f"mmd default {active[0]}   # the other is not loaded at startup then",
        )
    return active[0] if active else None


def is_loaded(here: Residency) -> bool:
    """Whether a boot has nothing to load for a model: it is in memory, awake or asleep."""
    return here in (Residency.RESIDENT, Residency.ASLEEP)

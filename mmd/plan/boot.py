"""Plan a boot: load the models that start asleep, one after another, then the default model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmd.errors import WrongUsage
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import gpu_holder


class Startup(StrEnum):
    """What happens to a model at boot."""

    DISABLED = "disabled"
    SLEEP = "sleep"  # loaded and put to sleep, so that the first request for it wakes it
    ACTIVE = "active"  # the default model


@dataclass(frozen=True, slots=True)
class Order:
    """The models of a boot, in order."""

    sleepers: tuple[str, ...]
    default: str | None
    unknown: tuple[str, ...] = ()  # in mmd.toml, but not registered


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model, or wait until it is loaded, and put it to sleep."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Activate the default model, or wait until it is resident."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Yield:
    """End the boot: another model holds the GPU."""

    to: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do."""


Step = Load | Activate | Yield | End


def order(startups: Mapping[str, Startup], registered: Sequence[str]) -> Order:
    """Return the models of a boot, sleepers in the registry's order. Raises WrongUsage for two defaults."""
    sleepers = tuple(model_id for model_id in registered if startups.get(model_id) is Startup.SLEEP)
    wanted = {model_id for model_id, startup in startups.items() if startup is not Startup.DISABLED}
    default = default_model(startups)
    unknown = tuple(sorted(wanted - set(registered)))
    return Order(sleepers, default if default in registered else None, unknown)


def default_model(startups: Mapping[str, Startup]) -> str | None:
    """Return the model with startup = "active". Raises WrongUsage if there are two."""
    active = sorted(model_id for model_id, startup in startups.items() if startup is Startup.ACTIVE)
    if len(active) > 1:
        raise WrongUsage(
            f'mmd.toml has two defaults: {" and ".join(active)} both have startup = "active"',
            hint=f"mmd default {active[0]}   # then the other is not loaded at boot",
        )
    return active[0] if active else None


def next_step(
    todo: Order, pairs: Mapping[str, Pair], *, tried: Collection[str], left_behind: str | None = None
) -> Step:
    """Return the next step of a boot, given the states of the units.

    `tried`: the models that this boot has handled, whatever the result. A boot unloads no model, except
    `left_behind`: the one that a killed boot loaded and did not put to sleep.
    """
    has_gpu = gpu_holder(pairs)
    left = [name for name in todo.sleepers if name not in tried and _residency(name, pairs) is not Residency.ASLEEP]
    default = todo.default
    if default is not None and (default in tried or _residency(default, pairs) is Residency.RESIDENT):
        default = None
    if has_gpu is None:
        if left:
            return Load(left[0])
        return Activate(default) if default is not None else End()
    if has_gpu == left_behind and has_gpu in left:
        return Load(has_gpu)
    if not left and default in (None, has_gpu):
        return Activate(default) if default is not None else End()
    return Yield(has_gpu)


def _residency(model_id: str, pairs: Mapping[str, Pair]) -> Residency:
    return residency(pairs.get(model_id, Pair()))

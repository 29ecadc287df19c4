"""What is loaded when the machine comes up: the models that are to sleep, one after another, then the default."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmd.errors import WrongUsage
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import holder


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
    unknown: tuple[str, ...] = ()  # in mmd.toml, and not registered (any more)


@dataclass(frozen=True, slots=True)
class Load:
    """Load it, or wait until it is loaded, and put it to sleep."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Activate the default, or wait until it is up."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Yield:
    """Go no further: somebody asked for another model."""

    to: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do."""


Step = Load | Activate | Yield | End


def order(startups: Mapping[str, Startup], registered: Sequence[str]) -> Order:
    """Sleepers come in the registry's order. Raises WrongUsage where two models are to be the default."""
    sleepers = tuple(model_id for model_id in registered if startups.get(model_id) is Startup.SLEEP)
    wanted = {model_id for model_id, startup in startups.items() if startup is not Startup.DISABLED}
    default = default_model(startups)
    unknown = tuple(sorted(wanted - set(registered)))
    return Order(sleepers, default if default in registered else None, unknown)


def default_model(startups: Mapping[str, Startup]) -> str | None:
    """The one model that is `active` at startup. Raises WrongUsage where there are two."""
    active = sorted(model_id for model_id, startup in startups.items() if startup is Startup.ACTIVE)
    if len(active) > 1:
        raise WrongUsage(
            f'mmd.toml has two defaults: {" and ".join(active)} both say startup = "active"',
            hint=f"mmd default {active[0]}   # the other is not loaded at startup then",
        )
    return active[0] if active else None


def next_step(
    todo: Order, pairs: Mapping[str, Pair], *, tried: Collection[str], left_behind: str | None = None
) -> Step:
    """What a boot does next, given what runs. `tried`: the models that it has had its turn with, however that ended.

    It takes the GPU from nobody but a boot that was killed; `left_behind`: the model that one was to put to sleep.
    """
    has_gpu = holder(pairs)
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

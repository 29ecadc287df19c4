"""Plan a boot: load the models that start asleep, one after another, then the default."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmd.errors import WrongUsage
from mmd.plan.residency import Pair, Residency, residency


class Startup(StrEnum):
    """What happens to a model at boot."""

    DISABLED = "disabled"
    SLEEP = "sleep"  # loaded and put to sleep, so that the first request for it wakes it
    ACTIVE = "active"  # the default


class DefaultKind(StrEnum):
    MODEL = "model"
    SETUP = "setup"
    LAST = "last"  # what was resident before the boot


@dataclass(frozen=True, slots=True)
class Default:
    """What a boot loads last and keeps loaded."""

    name: str  # of the model or setup; "" for what was resident last
    kind: DefaultKind


LAST = Default("", DefaultKind.LAST)


@dataclass(frozen=True, slots=True)
class Order:
    """The models of a boot, in order."""

    sleepers: tuple[str, ...]
    default: tuple[str, ...]  # loaded together
    unknown: tuple[str, ...] = ()  # in mmd.toml, but not registered


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model, or wait until it is loaded, and put it to sleep."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Activate the models of the default together, or wait until they are resident."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do."""


Step = Load | Activate | End


def order(startups: Mapping[str, Startup], registered: Sequence[str], default: Sequence[str]) -> Order:
    """Return the models of a boot, sleepers in the registry's order; `default` are the models of the default."""
    sleepers = tuple(model_id for model_id in registered if startups.get(model_id) is Startup.SLEEP)
    wanted = {model_id for model_id, startup in startups.items() if startup is not Startup.DISABLED} | set(default)
    unknown = tuple(sorted(wanted - set(registered)))
    return Order(sleepers, tuple(model_id for model_id in default if model_id in registered), unknown)


def defaults(
    models: Mapping[str, Startup], setups: Mapping[str, Startup], *, restore_last: bool
) -> tuple[Default, ...]:
    """Return everything that mmd.toml makes the default; more than one is a mistake."""
    return (
        *(Default(name, DefaultKind.MODEL) for name in sorted(models) if models[name] is Startup.ACTIVE),
        *(Default(name, DefaultKind.SETUP) for name in sorted(setups) if setups[name] is Startup.ACTIVE),
        *([LAST] if restore_last else []),
    )


def only_default(found: Sequence[Default]) -> Default | None:
    """Return the default, None if there is none. Raises WrongUsage if there are two."""
    if len(found) > 1:
        first, second = (one.name for one in found[:2])
        if second:
            message = f'mmd.toml has two defaults: {first} and {second} both have startup = "active"'
        else:
            message = f'mmd.toml has two defaults: {first} has startup = "active", and [boot] has restore_last = true'
        raise WrongUsage(message, hint=f"mmd default {first}   # then the other is not loaded at boot")
    return found[0] if found else None


def next_step(
    todo: Order, pairs: Mapping[str, Pair], *, tried: Collection[str], left_behind: str | None = None
) -> Step:
    """Return the next step of a boot, given the states of the units.

    `tried` are the models that this boot has handled, whatever the result. A boot unloads no model: a step fails if the
    models of users and clients leave too little memory. It puts no model to sleep that a user or client asked for.
    `left_behind` is the model that a killed boot has loaded and not put to sleep; this boot puts it to sleep.
    """
    for name in todo.sleepers:
        here = _residency(name, pairs)
        is_in_use = here in (Residency.RESIDENT, Residency.STARTING) and name != left_behind
        if name not in tried and here is not Residency.ASLEEP and not is_in_use:
            return Load(name)
    missing = [name for name in todo.default if _residency(name, pairs) is not Residency.RESIDENT]
    if missing and not set(todo.default) & set(tried):
        return Activate(todo.default)
    return End()


def _residency(model_id: str, pairs: Mapping[str, Pair]) -> Residency:
    return residency(pairs.get(model_id, Pair()))

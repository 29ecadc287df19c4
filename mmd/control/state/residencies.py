"""Where each model is, without the rest of the status: `mmd list` needs no more, and imports no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from mmd.control.state.last_asked import asked_models
from mmd.plan.residency import Pair, Residency, residency
from mmd.registry.record import ModelType
from mmd.units.watch import Pairs, read_pairs

StatusWord = Literal["active", "resident", "sleeping", "starting", "failed", "stranded", "absent"]


async def current_pairs() -> Pairs:
    """Return the units of each model that has one. Raise ManagerUnreachable."""
    from mmd.units.bus import Manager

    async with await Manager.connect() as manager:
        return await read_pairs(manager)


def active_of(pairs: Mapping[str, Pair], asked: Sequence[str] | None = None) -> str | None:
    """Return the model that answers a request without a name: of the resident models that generate text, the one that
    was asked for last. If no such model is resident, return another resident model.

    `asked`: the models that were asked for, the newest first; by default they are read.
    """
    return _asked_last(pairs, asked, lambda pair: residency(pair) is Residency.RESIDENT)


def next_active(pairs: Mapping[str, Pair], asked: Sequence[str] | None = None) -> str | None:
    """Return the model that will be active: as `active_of`, of the models that hold a device or are about to."""
    return _asked_last(pairs, asked, lambda pair: pair.holds_gpu)


def _asked_last(pairs: Mapping[str, Pair], asked: Sequence[str] | None, is_meant: Callable[[Pair], bool]) -> str | None:
    found = {model_id: pair for model_id, pair in sorted(pairs.items()) if is_meant(pair)}
    among = [model_id for model_id, pair in found.items() if generates(pair)] or list(found)
    if len(among) < 2:
        return next(iter(among), None)
    order = asked_models() if asked is None else asked
    return min(among, key=lambda model_id: order.index(model_id) if model_id in order else len(order))


def generates(pair: Pair) -> bool:
    """True if a model writes text. A unit that does not say what its model is, is taken for one that does."""
    try:
        return ModelType(pair.type).generates
    except ValueError:
        return True


_STATUS_WORDS: Mapping[Residency, StatusWord] = {
    Residency.RESIDENT: "resident",
    Residency.ASLEEP: "sleeping",
    Residency.STARTING: "starting",
    Residency.FAILED: "failed",
    Residency.STRANDED: "stranded",
    Residency.ABSENT: "absent",
    Residency.STOPPING: "absent",
}


def status_word(model_id: str, here: Residency, active: str | None) -> StatusWord:
    """Return the residency in the words of the API; "active" is the resident model that answers by default."""
    return "active" if here is Residency.RESIDENT and model_id == active else _STATUS_WORDS[here]

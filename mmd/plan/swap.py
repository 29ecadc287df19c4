"""Plan one activation: what happens to each wanted model, and which units the one D-Bus call names.

systemd carries the call out. The gate of each new token waits until the ledger has room for its model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mmd.plan.placement.occupancy import Occupancy
from mmd.plan.placement.place import Placement
from mmd.plan.residency import STARTS, Pair, Residency, residency
from mmd.plan.share import Share


class Action(StrEnum):
    """What an activation does with one wanted model."""

    NOTHING = "nothing"  # it is resident
    AWAIT = "await"  # its start is in progress: wait for that job
    WAKE = "wake"  # its engine sleeps and was made from an equal launch
    START = "start"
    REPLACE = "replace"  # its units differ from its launch, or its engine is down: end them, then start
    LOOK_AGAIN = "look again"  # its token is being stopped, so its name is not free yet


def action(pair: Pair, *, same_launch: bool) -> Action:
    """Return what to do with a model. `same_launch`: its engine was made from an equal launch."""
    if _is_released(pair):
        return Action.LOOK_AGAIN
    if not pair.engine.loaded and not pair.token.loaded:
        return Action.START
    here = residency(pair)
    if same_launch:
        match here:
            case Residency.RESIDENT:
                return Action.NOTHING
            case Residency.STARTING if pair.holds_gpu and not pair.waits_to_restart:
                return Action.AWAIT
            case Residency.ASLEEP:
                return Action.WAKE
            case _:
                pass
    return Action.REPLACE


def _is_released(pair: Pair) -> bool:
    """True while systemd ends the token or the engine of a model: neither can be started or replaced meanwhile."""
    token, engine = pair.token, pair.engine
    if token.job in STARTS:
        return False
    return "stop" in (token.job, engine.job) or "deactivating" in (token.active, engine.active)


_WHY = {
    Residency.ASLEEP: "asleep with another command line or on another device",
    Residency.FAILED: "failed before, starting again",
    Residency.STOPPING: "stopping, starting again",
    Residency.RESIDENT: "resident with another command line",
    Residency.STARTING: "starting with another command line, or again after a crash",
    Residency.STRANDED: "awake without its token, starting again",
    Residency.ABSENT: "not loaded",
}


def why(pair: Pair, done: Action) -> str:
    """Return why a model is not resident yet, for the journal and the swap events."""
    match done:
        case Action.NOTHING:
            return "it is resident"
        case Action.AWAIT:
            return "its start is in progress"
        case Action.WAKE:
            return "asleep in RAM"
        case _:
            return _WHY[residency(pair)]


@dataclass(frozen=True, slots=True)
class Leavers:
    """The models that are unloaded for an activation, and the units that its swap slice stops."""

    evicted: tuple[str, ...]  # those that were resident or starting: restored if the activation fails
    tokens: tuple[str, ...]
    engines: tuple[str, ...]  # of those that end although they could sleep
    why: Mapping[str, str]


def leavers(placement: Placement, occupied: Occupancy) -> Leavers:
    """Return the models and units that are unloaded for a placement."""
    by_id = {one.model_id: one for one in occupied.occupants}
    gone = [by_id[model_id] for model_id in (*placement.sleep, *placement.end)]
    ends = {by_id[model_id].model_id for model_id in placement.end if by_id[model_id].keeps is not None}
    awake = [one for one in gone if not one.is_asleep]
    return Leavers(
        evicted=tuple(sorted(one.model_id for one in awake if not one.is_dead)),
        tokens=tuple(sorted(one.model_id for one in awake)),
        engines=tuple(sorted(ends)),
        why=placement.why,
    )


def waits_for(share: Share, left: Leavers, occupied: Occupancy) -> frozenset[str]:
    """Return the models that a new model's gate waits for: those that are unloaded from a device of its share."""
    going = {one.model_id: one.uses for one in occupied.occupants if one.model_id in (*left.tokens, *left.engines)}
    return frozenset(name for name, held in {**occupied.leaving, **going}.items() if held.keys() & share.keys())


def gpu_holders(pairs: Mapping[str, Pair], *, other_than: Collection[str] = ()) -> tuple[str, ...]:
    """Return the models whose tokens are active or about to be."""
    return tuple(name for name, pair in sorted(pairs.items()) if pair.holds_gpu and name not in other_than)


def taken_again(failed: str, pairs: Mapping[str, Pair]) -> bool:
    """True if a retry by another process has started the failed model again.

    systemd's own restart of it does not count.
    """
    pair = pairs.get(failed, Pair())
    is_up = residency(pair) in (Residency.STARTING, Residency.RESIDENT) and not pair.waits_to_restart
    return pair.holds_gpu and is_up

"""What holds the devices now, by the states of the units: the planner's view before it places a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmd.plan.lease import LeasePair, LeaseState, lease_id
from mmd.plan.placement.lease_place import lease_occupants
from mmd.plan.placement.place import Device, Occupant, capacities
from mmd.plan.residency import STARTS, Pair, held_now
from mmd.plan.share import Holding, Share, total_share
from mmd.registry.record import ModelType


@dataclass(frozen=True, slots=True)
class Use:
    """How requests use a model."""

    last_used: float = 0.0  # seconds on any clock
    in_use: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The models and leases that hold memory, and those that are leaving."""

    occupants: tuple[Occupant, ...]
    leaving: Mapping[str, Share]  # still in memory, being stopped: gates of new models on these devices wait for them
    stranded: tuple[str, ...]  # engines that are awake without a token: they are stopped before anything is placed


_NO_USE = Use()
_LIGHT_TYPES = frozenset(kind.value for kind in ModelType if not kind.generates)


def occupancy(
    pairs: Mapping[str, Pair],
    leases: Mapping[str, LeasePair],
    devices: Sequence[Device],
    uses: Mapping[str, Use],
) -> Occupancy:
    """Return what holds memory, or is about to, by the units' states.

    token                               engine                     it
    held, start or restart job          up, or about to be         is an occupant, also before its gate has run
    held                                down, without a job        is a dead occupant: it leaves first
    stop job, deactivating              active, and can sleep      is leaving, and an occupant that sleeps
    stop job, deactivating              any other                  is leaving
    down                                stop job, deactivating     is leaving
    down                                active, with proof         is an occupant that sleeps
    down                                up without proof           is stranded
    """
    everything = Holding(capacities(devices))  # for the units of mmd 0.1
    occupants = list(lease_occupants(leases))
    leaving: dict[str, Share] = {
        lease_id(name): lease.uses or {}
        for name, lease in leases.items()
        if lease.state is LeaseState.ENDING and not lease.is_over
    }
    stranded: list[str] = []
    for model_id, pair in sorted(pairs.items()):
        token, engine = pair.token, pair.engine
        if not token.loaded and not engine.loaded:
            continue
        holding, use = pair.holding or everything, uses.get(model_id, _NO_USE)
        grows = pair.type not in _LIGHT_TYPES
        is_up = engine.active not in ("inactive", "failed")
        releases = token.job not in STARTS and (token.job == "stop" or token.active == "deactivating")
        if not releases and (token.active in ("active", "activating") or token.job in STARTS):
            is_dead = token.active == "active" and not token.job and not is_up and engine.job not in STARTS
            occupants.append(_occupant(model_id, holding, use, grows=grows, is_dead=is_dead))
        elif releases:
            leaving[model_id] = holding.uses
            if holding.keeps is not None and pair.engine_stays:
                occupants.append(_occupant(model_id, holding, use, grows=grows, is_asleep=True))
        elif is_up and (engine.job == "stop" or engine.active == "deactivating"):
            leaving[model_id] = holding.uses if pair.kept is None else pair.kept
        elif is_up and pair.kept is not None:
            occupants.append(_occupant(model_id, Holding(holding.uses, pair.kept), use, grows=grows, is_asleep=True))
        elif is_up:
            stranded.append(model_id)
    return Occupancy(tuple(occupants), leaving, tuple(stranded))


def _occupant(
    model_id: str, holding: Holding, use: Use, *, grows: bool, is_dead: bool = False, is_asleep: bool = False
) -> Occupant:
    return Occupant(
        model_id=model_id,
        uses=holding.uses,
        keeps=holding.keeps,
        is_asleep=is_asleep,
        last_used=use.last_used,
        pinned=use.pinned,
        in_use=use.in_use,
        is_dead=is_dead,
        grows=grows,
    )


def held(pairs: Mapping[str, Pair], leases: Mapping[str, LeasePair]) -> dict[str, int]:
    """Return what models and leases hold of each device now, in MiB."""
    leased = (lease.uses or {} for lease in leases.values() if not lease.is_over)
    return total_share((*map(held_now, pairs.values()), *leased))

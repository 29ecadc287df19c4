"""Read the states of engines, tokens and leases from the user manager, once or continuously."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mmd.paths import runtime_dir
from mmd.plan.lease import LeasePair
from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding, Share, read_holding, read_share_words
from mmd.units.bus import Manager, Unit
from mmd.units.names import engine_and_type, split, split_lease

Pairs = dict[str, Pair]
Leases = dict[str, LeasePair]


@dataclass(frozen=True, slots=True)
class UnitStates:
    """The units of models and of leases, from one listing."""

    pairs: Pairs
    leases: Leases


async def read_states(manager: Manager) -> UnitStates:
    units = await manager.units()
    return UnitStates(pairs_of(units), leases_of(units))


async def read_pairs(manager: Manager) -> Pairs:
    """Return the engine and token of every model with a loaded unit, by model id."""
    return pairs_of(await manager.units())


def pairs_of(units: Iterable[Unit]) -> Pairs:
    """Return the engines and tokens among these units, by model id."""
    states: dict[str, dict[str, UnitState]] = {}
    holdings: dict[str, Holding] = {}
    engines: dict[str, tuple[str, str]] = {}
    for unit in units:
        if (name := split(unit.name)) is not None:
            role, model_id = name
            state = _state(unit)
            states.setdefault(model_id, {})[role] = state
            # Both units of a model say what it holds, since a sleeping engine has no token.
            if state.loaded and (holding := read_holding(unit.description)) is not None:
                holdings[model_id] = holding
            if state.loaded and role == "model":
                engines[model_id] = engine_and_type(unit.description)
    return {
        model_id: _pair(
            model_id,
            found.get("model", UnitState()),
            found.get("resident", UnitState()),
            holdings.get(model_id),
            engines.get(model_id, ("", "")),
        )
        for model_id, found in states.items()
    }


def leases_of(units: Iterable[Unit]) -> Leases:
    """Return the units of leases among these, by the lease's name."""
    found: dict[str, dict[str, Unit]] = {}
    for unit in units:
        if (name := split_lease(unit.name)) is not None:
            found.setdefault(name[1], {})[name[0]] = unit
    return {name: _lease(pair.get("holder"), pair.get("token")) for name, pair in found.items()}


def _pair(
    model_id: str, engine: UnitState, token: UnitState, holding: Holding | None, engine_and_type: tuple[str, str]
) -> Pair:
    may_sleep = engine.active == "active" and token.active not in ("active", "activating")
    return Pair(engine, token, holding, *engine_and_type, kept=read_kept(model_id) if may_sleep else None)


def read_kept(model_id: str) -> Share | None:
    """Return what a model keeps asleep, as its release hook has recorded; None without that proof of sleep."""
    try:
        return read_share_words((runtime_dir() / model_id / "keeps").read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _lease(holder: Unit | None, token: Unit | None) -> LeasePair:
    holding = read_holding(token.description) if token is not None else None
    return LeasePair(
        holder=_state(holder) if holder is not None else UnitState(),
        token=_state(token) if token is not None else UnitState(),
        uses=holding.uses if holding is not None else None,
        description=holder.description if holder is not None else "",
    )


def _state(unit: Unit) -> UnitState:
    # systemd also lists units that do not exist, as "not-found", if other units refer to them.
    return UnitState(unit.active_state, unit.sub_state, unit.job, loaded=unit.load_state == "loaded")


class Watch:
    """The pairs and the leases, kept up to date by the manager's signals.

    `pairs` and `leases` are replaced by new dicts at every change and never mutated, so a reference to one is a
    snapshot. Reading them does no I/O.
    """

    def __init__(self, manager: Manager) -> None:
        self.pairs: Pairs = {}
        self.leases: Leases = {}
        self._manager = manager
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def follow(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every replacement of `pairs`."""
        self._listeners.append(listener)

    async def until(self, condition: Callable[[Pairs], bool]) -> None:
        """Return as soon as `condition` is true for the pairs."""
        changed = asyncio.Event()
        self._listeners.append(changed.set)
        try:
            while not condition(self.pairs):
                changed.clear()
                await changed.wait()
        finally:
            self._listeners.remove(changed.set)

    async def refresh(self) -> None:
        """Read the units now, and call the listeners."""
        units = await self._manager.units()
        self.pairs, self.leases = pairs_of(units), leases_of(units)
        self.notify()

    def notify(self) -> None:
        """Call the listeners."""
        for listener in tuple(self._listeners):
            listener()

    async def run(self) -> None:
        """Keep `pairs` up to date until cancelled: subscribe, then read once, and again after every signal.

        Signals that arrive during a read cause one more read. Raises ManagerUnreachable.
        """
        await self._manager.listen(lambda _unit: self._changed.set())
        while True:
            await self.refresh()
            await self._changed.wait()
            self._changed.clear()

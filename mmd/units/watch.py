"""Read the states of engines and tokens from the user manager, once or continuously."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding, read_holding
from mmd.units.bus import Manager, Unit
from mmd.units.names import split

Pairs = dict[str, Pair]


async def read_pairs(manager: Manager) -> Pairs:
    """Return the engine and token of every model with a loaded unit, by model id."""
    return pairs_of(await manager.units())


def pairs_of(units: Iterable[Unit]) -> Pairs:
    """Return the engines and tokens among these units, by model id."""
    states: dict[str, dict[str, UnitState]] = {}
    holdings: dict[str, Holding] = {}
    for unit in units:
        if (name := split(unit.name)) is not None:
            role, model_id = name
            # systemd also lists units that do not exist but that others refer to, as "not-found".
            state = UnitState(unit.active_state, unit.sub_state, unit.job, loaded=unit.load_state == "loaded")
            states.setdefault(model_id, {})[role] = state
            # Both units of a model say what it holds; a sleeping engine has no token.
            if state.loaded and (holding := read_holding(unit.description)) is not None:
                holdings[model_id] = holding
    return {
        model_id: Pair(found.get("model", UnitState()), found.get("resident", UnitState()), holdings.get(model_id))
        for model_id, found in states.items()
    }


class Watch:
    """The pairs, kept up to date by the manager's signals.

    `pairs` is replaced by a new dict at every change and never mutated, so a reference to it is a snapshot. Reading it
    does no I/O.
    """

    def __init__(self, manager: Manager) -> None:
        self.pairs: Pairs = {}
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
        """Read the pairs now, and call the listeners."""
        self.pairs = await read_pairs(self._manager)
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

"""Forecasts for the scheduler: by the watched units, and by what was read when a model was asked for."""

from __future__ import annotations

from collections.abc import Hashable

from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.state.leases import lease_pids
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.forecast import Surroundings, forecast
from mmd.plan.placement.occupancy import Occupancy, held, occupancy
from mmd.plan.placement.place import Device
from mmd.plan.queue import Claims, Forecast, NoRoom, claims_key
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.bus import Manager
from mmd.units.watch import Leases, Pairs, Watch


class Forecasts:
    """Owns the demands of the models that were asked for, and the forecasts since the units changed last."""

    def __init__(self, manager: Manager, planner: LaunchPlanner, watch: Watch) -> None:
        self._manager = manager
        self._planner = planner
        self._watch = watch
        self._demands: dict[str, Demand] = {}
        self._devices: tuple[Device, ...] = ()
        self._light: tuple[Demand, ...] = ()
        self._one_each = False
        self._seen: tuple[Pairs, Leases] = {}, {}
        self._occupied = Occupancy((), {}, ())
        self._known: dict[Hashable, Forecast | NoRoom] = {}

    async def prepare(self, model_id: str) -> None:
        """Read the machine, and find out what a model needs of it. Raises what planning raises."""
        planner, watch = self._planner, self._watch
        pids = await lease_pids(self._manager, watch.leases)
        devices = await planner.devices(held(watch.pairs, watch.leases), pids)
        demand = await planner.demand(model_id, devices)
        light = await planner.light_demands(devices)
        self._one_each = await planner.one_each()
        self._devices, self._light = devices, light
        self._demands[model_id] = demand
        self._look()

    def forecast(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        """Answer from memory, as `plan.queue.Forecaster`."""
        demand = self._demands.get(model_id)
        if demand is None:
            return NoRoom(f"what {model_id} needs is not known")
        pairs, leases = self._seen
        if pairs is not self._watch.pairs or leases is not self._watch.leases:
            self._look()
        key = model_id, present, claims_key(claimed)
        if key not in self._known:
            around = Surroundings(self._devices, self._occupied.occupants, self._light, self._one_each)
            self._known[key] = forecast(demand, around, present=present, claimed=claimed, at=self._asleep_at(model_id))
        return self._known[key]

    def _look(self) -> None:
        pairs, leases = self._watch.pairs, self._watch.leases
        self._seen = pairs, leases
        self._occupied = occupancy(pairs, leases, self._devices, {})
        self._known.clear()

    def _asleep_at(self, model_id: str) -> dict[str, int] | None:
        """Return where the model wakes if it is asleep."""
        pair = self._watch.pairs.get(model_id, Pair())
        if residency(pair) is not Residency.ASLEEP or pair.holding is None:
            return None
        return dict(pair.holding.uses)

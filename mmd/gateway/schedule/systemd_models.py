"""Implement `Models` with systemd: states from watched units, names from the registry, changes by `Controller`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from mmd.control.lifecycle.controller import Controller
from mmd.control.lifecycle.idle_rules import loaded_models
from mmd.control.models.setup_info import SetupInfo, setup_infos
from mmd.control.models.setups import Setup
from mmd.control.models.startup import startups
from mmd.control.state.last_asked import AskedModels
from mmd.control.state.memory_use import Resources
from mmd.control.state.model_info import ModelInfo, model_infos
from mmd.control.state.residencies import active_of, generates, next_active
from mmd.control.state.status import Status
from mmd.control.state.suspended_models import suspended_models
from mmd.control.state.swap_events import SwapDurations
from mmd.errors import NoSuchModel, PlacementChanged, SwapSuperseded
from mmd.gateway.http.api_keys import require_key_to_expose
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.schedule.forecasts import Forecasts
from mmd.gateway.schedule.leases import SystemdLeases
from mmd.gateway.schedule.model_names import ModelNames, embedding_model
from mmd.paths import engine_socket
from mmd.plan.idle import LoadedModel
from mmd.plan.lease import LeaseState
from mmd.plan.placement.occupancy import Use
from mmd.plan.queue import Claims, Forecast, NoRoom
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.watch import Leases, Pairs, Watch


class SystemdModels:
    """The `Models` of a real gateway. Owns the names and the durations of swaps that it has read."""

    def __init__(self, controller: Controller, watch: Watch) -> None:
        self._controller = controller
        self._watch = watch
        self.leases = SystemdLeases(controller, watch)
        self._names = ModelNames(controller.registry, controller.settings)
        self._durations = SwapDurations()
        self._addresses: dict[str, str] = {}
        self._asked = AskedModels(watch.notify)
        self._rivals: frozenset[str] = frozenset()  # resident models of which one is active, if there are several
        watch.follow(self._on_units)
        self._holders: tuple[Pairs, frozenset[str]] = {}, frozenset()
        self._forecasts = Forecasts(controller.manager, controller.planner, watch)
        self._starting: set[str] = set()  # models that this gateway activates now

    def find(self, name: str | None, listener_kind: ListenerKind = ListenerKind.MAIN) -> str:
        if name:
            return self._names.find(name)
        if listener_kind is ListenerKind.EMBEDDING:
            return embedding_model(self._names.models.values(), self._watch.pairs)
        # This may be a model that is loading or suspended: the request then waits until it is resident.
        found = self.active_model() or self._suspended_last()
        if found is None:
            raise NoSuchModel(
                "the request names no model, and none is active",
                hint="mmd activate ID   # or name one of: mmd list",
            )
        return found

    def active_model(self) -> str | None:
        pairs, order = self._watch.pairs, self._asked.order()
        return active_of(pairs, order) or next_active(pairs, order)

    def asked(self, model_id: str) -> None:
        if model_id in self._rivals:
            self._asked.note(model_id)

    def setup(self, name: str) -> Setup | None:
        return self._names.setup(name)

    def address(self, model_id: str) -> str | None:
        if self._residency(model_id) is not Residency.RESIDENT:
            return None
        address = self._addresses.get(model_id)
        if address is None:
            # Cached: building it is a quarter of a request's cost.
            address = self._addresses[model_id] = str(engine_socket(model_id))
        return address

    def is_asleep(self, model_id: str) -> bool:
        # False while it falls asleep: its engine still finishes running requests.
        return self._residency(model_id) is Residency.ASLEEP

    def expected_seconds(self, model_id: str) -> float | None:
        return self._durations.seconds("wake" if self.is_asleep(model_id) else "load", model_id)

    def follow(self, listener: Callable[[], None]) -> None:
        self._watch.follow(listener)

    def use_from(self, read: Callable[[], Mapping[str, Use]]) -> None:
        self._controller.planner.uses = read

    def holders(self) -> frozenset[str]:
        pairs = self._watch.pairs
        if self._holders[0] is not pairs:
            self._holders = pairs, frozenset(name for name, pair in pairs.items() if pair.holds_gpu)
        return self._holders[1]

    def forecast(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        return self._forecasts.forecast(model_id, present=present, claimed=claimed)

    def pinned(self) -> Collection[str]:
        return self._controller.pinned()

    async def loaded_models(self, *, keep_alive: Collection[str]) -> Sequence[LoadedModel]:
        controller = self._controller
        return await loaded_models(controller.manager, self._watch.pairs, controller.idleness, keep_alive=keep_alive)

    async def was_evicted(self, model_id: str) -> bool:
        await self._watch.refresh()
        return was_evicted(model_id, self._watch.pairs, self._watch.leases)

    async def prepare(self, model_id: str) -> None:
        await self._forecasts.prepare(model_id)

    async def activate(
        self,
        model_id: str,
        *,
        drain_seconds: float,
        leavers: Collection[str] | None = None,
        devices: Collection[str] | None = None,
    ) -> None:
        """Let a swap of another process finish first: interrupting it would waste its work."""
        self._starting.add(model_id)
        try:
            await self._watch.refresh()
            await self._watch.until(lambda pairs: not another_starts(self._starting, pairs, devices))
            before = self.holders()
            staying = (before | self._starting) - {model_id, *leavers} if leavers is not None else ()
            try:
                await self._controller.activate(model_id, drain_seconds=drain_seconds, staying=staying, devices=devices)
            except PlacementChanged:
                await self._watch.refresh()
                raise
            except SwapSuperseded as error:
                await self._watch.refresh()
                # If no other model has come, a user stopped this one: do not start it again.
                if self.holders() - before - self._starting:
                    raise PlacementChanged(error.message, hint=error.hint) from error
                raise
            await self._watch.refresh()
        finally:
            self._starting.discard(model_id)

    async def would_unload(self, setup: Setup) -> Collection[str]:
        from mmd.control.lifecycle.setup_plan import would_unload

        return await would_unload(self._controller, setup)

    async def activate_setup(self, setup: Setup, *, leavers: Collection[str]) -> None:
        from mmd.control.lifecycle.setup_plan import activate_setup

        staying = [name for name, pair in self._watch.pairs.items() if pair.holds_gpu and name not in leavers]
        try:
            await activate_setup(self._controller, setup, staying=staying)
        finally:
            await self._watch.refresh()

    def require_exposable(self, setup: Setup) -> None:
        if setup.expose:
            require_key_to_expose()

    async def open_tunnels(self, setup: Setup) -> None:
        if setup.expose:
            from mmd.control.tunnel.setup_tunnels import open_setup

            await open_setup(self._controller.manager, setup)

    async def close_tunnels(self, setup: Setup) -> None:
        if setup.expose:
            from mmd.control.tunnel.setup_tunnels import close_setup

            await close_setup(self._controller.manager, setup)

    async def sleep(self, model_id: str | None, level: int | None = None) -> tuple[str, ...]:
        unloaded = await self._controller.sleep(model_id, level)
        await self._watch.refresh()
        return unloaded

    async def stop(self, model_id: str | None) -> None:
        await self._controller.stop(model_id)
        await self._watch.refresh()

    async def stop_asleep(self, model_id: str) -> None:
        await self._controller.stop_asleep(model_id)
        await self._watch.refresh()

    async def on_gpu(self) -> Collection[str]:
        from mmd.control.lifecycle.suspend import on_gpu

        return await on_gpu(self._controller.manager)

    def suspended(self) -> Sequence[str]:
        return suspended_models()

    async def suspend(self, *, drain_seconds: float) -> None:
        await self._controller.suspend(drain_seconds=drain_seconds)
        await self._watch.refresh()

    async def restore(self, model_ids: Sequence[str]) -> None:
        from mmd.control.lifecycle.suspend import restore_models

        await restore_models(self._controller.restore, model_ids)
        await self._watch.refresh()

    async def status(self) -> Status:
        return await self._controller.status()

    async def models(self) -> list[ModelInfo]:
        pairs = self._watch.pairs
        modes = startups(self._names.settings)
        return model_infos(
            self._names.models.values(), pairs, active_of(pairs, self._asked.order()), modes, self._names.aliases
        )

    async def setups(self) -> list[SetupInfo]:
        return setup_infos(self._names.models, self._names.settings, self._watch.pairs)

    async def resources(self) -> Resources:
        return await self._controller.reader.resources()

    def _on_units(self) -> None:
        """Requests note which model they ask for only while that decides which one is active."""
        found = [
            model_id
            for model_id, pair in self._watch.pairs.items()
            if residency(pair) is Residency.RESIDENT and generates(pair)
        ]
        self._rivals = frozenset(found if len(found) > 1 else ())

    def _suspended_last(self) -> str | None:
        order, suspended = self._asked.order(), suspended_models()
        return next((name for name in order if name in suspended), next(iter(suspended), None))

    def _residency(self, model_id: str) -> Residency:
        return residency(self._watch.pairs.get(model_id, Pair()))


def another_starts(ours: Collection[str], pairs: Pairs, devices: Collection[str] | None = None) -> bool:
    """Return whether a model that is not `ours` is being loaded or woken on one of these devices, by default on any.

    A restart that is only scheduled does not count.
    """
    return any(
        residency(pair) is Residency.STARTING and pair.holds_gpu and not pair.waits_to_restart
        for name, pair in pairs.items()
        if name not in ours and _may_be_on(pair, devices)
    )


def _may_be_on(pair: Pair, devices: Collection[str] | None) -> bool:
    return devices is None or pair.holding is None or not pair.holding.uses.keys().isdisjoint(devices)


def was_evicted(model_id: str, pairs: Pairs, leases: Leases) -> bool:
    """Return whether a swap or a lease ended the model's engine. Call it when the engine has just ended.

    A crash does not change the model's token, and systemd waits before it restarts the engine.
    """
    pair = pairs.get(model_id, Pair())
    if pair.token.active != "active" or pair.token.job == "stop":
        is_leasing = any(lease.state is LeaseState.STARTING for lease in leases.values())
        return is_leasing or another_starts({model_id}, pairs)
    return residency(pair) is Residency.STARTING and not pair.waits_to_restart  # already being loaded again

"""Plan a lease: how much of which device it gets, and which models leave for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmd.control.lifecycle.placing import EndFirst, Placer
from mmd.errors import LeaseRefused, SwapSuperseded, WrongUsage
from mmd.plan.lease import is_valid_name, lease_id, new_name
from mmd.plan.placement.lease_place import LeaseRequest, place_lease, place_on_all_gpus, refusal
from mmd.plan.placement.place import Placement, capacities
from mmd.plan.share import device_ids
from mmd.plan.swap import Leavers, leavers, waits_for
from mmd.quantities import MIB, read_size
from mmd.units.bus import Manager
from mmd.units.lease_spec import read_restores
from mmd.units.names import BACKS
from mmd.units.spec import Admission

if TYPE_CHECKING:
    from mmd.control.lifecycle.placing import View
    from mmd.control.lifecycle.planner import LaunchPlanner
    from mmd.control.state.machine_reader import MachineReader
    from mmd.plan.share import Share
    from mmd.units.spec import Hooks
    from mmd.units.watch import UnitStates

GAMES = "games"  # the lease that the gateway takes while games run


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """What a person or a program asks for, in its own words."""

    name: str | None = None  # None: the program's name
    vram: str | None = None  # "10G"; None: the whole of one device
    gpu: str | None = None  # an index or a UUID; None: any
    by_user: bool = False  # it unloads pinned models, too
    now: bool = False  # it does not wait for running responses
    for_games: bool = False  # all that models can leave of every GPU


@dataclass(frozen=True, slots=True)
class LeasePlan:
    """A lease, ready to be submitted."""

    name: str
    share: Share
    left: Leavers
    admission: Admission
    restores: tuple[str, ...]  # the models to restore when it ends

    @property
    def id(self) -> str:
        return lease_id(self.name)


class LeasePlanner:
    """Plans leases from the units and the machine as they are at each call. It keeps no state."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner, reader: MachineReader) -> None:
        self._manager = manager
        self._planner = planner
        self._placer = Placer(manager, hooks, planner)
        self._reader = reader

    async def plan(
        self, wish: LeaseWish, program: str, states: UnitStates, staying: Collection[str] = ()
    ) -> LeasePlan | EndFirst:
        """Plan a lease. The models `staying` are not unloaded for it. The caller holds the planner lock.

        Raises LeaseRefused, WrongUsage, and SwapSuperseded if it needs the memory of a model that is staying.
        """
        name = _name(wish, program, states)
        request = LeaseRequest(name, _size_mib(wish), await self._device(wish))
        view = await self._placer.view(states)
        if (end_first := view.end_first()) is not None:
            return end_first
        placed = self._place(wish, request, view, staying)
        share = placed.where[lease_id(name)]
        left = leavers(placed, view.occupied)
        admission = Admission(capacities(view.devices), waits_for=waits_for(share, left, view.occupied))
        return LeasePlan(name, share, left, admission, await self._restores(left, view))

    def _place(self, wish: LeaseWish, request: LeaseRequest, view: View, staying: Collection[str]) -> Placement:
        occupants, devices, by_user = view.occupied.occupants, view.devices, wish.by_user
        held = [replace(one, is_lease=True) if one.model_id in staying else one for one in occupants]
        if wish.for_games:
            on_all = place_on_all_gpus(request.name, held, devices, by_user=by_user)
            if on_all is None:
                message = "pinned models and leases hold all GPUs, so unloading other models frees no memory"
                raise LeaseRefused(message, hint="mmd status   # the memory of each device")
            return on_all
        placed = place_lease(request, held, devices, by_user=by_user)
        if isinstance(placed, Placement):
            return placed
        if staying and isinstance(place_lease(request, occupants, devices, by_user=by_user), Placement):
            message = f"the lease {request.name} now needs memory of models that still answer requests"
            raise SwapSuperseded(message, hint="mmd status   # shows the requests; then try again")
        message, hint = refusal(request, placed, occupants, devices, by_user=by_user)
        others = f"; {self._planner.other_programs}" if self._planner.other_programs else ""
        raise LeaseRefused(message + others, hint=hint)

    async def _device(self, wish: LeaseWish) -> str | None:
        """Return the device that a wish names by its index, or by the start of its UUID."""
        if wish.gpu is None:
            return None
        devices = device_ids(await self._reader.gpus())
        for device, gpu in devices.items():
            if wish.gpu == str(gpu.index) or (wish.gpu.startswith("GPU-") and gpu.uuid.startswith(wish.gpu)):
                return device
        known = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in devices.values()) or "none"
        raise WrongUsage(f"there is no GPU {wish.gpu}; there are: {known}", hint="mmd machine   # lists the GPUs")

    async def _restores(self, left: Leavers, view: View) -> tuple[str, ...]:
        """Return the models to restore: those that leave, the last used first, and those that other leases restore.

        The lease that ends last restores all that fit then.
        """
        last_used = {one.model_id: one.last_used for one in view.occupied.occupants}
        own = sorted(left.evicted, key=lambda model_id: -last_used.get(model_id, 0.0))
        others = (
            model_id
            for unit in await self._manager.units([BACKS])
            if unit.load_state == "loaded"
            for model_id in read_restores(unit.description)
        )
        return tuple(dict.fromkeys((*own, *others)))


def _name(wish: LeaseWish, program: str, states: UnitStates) -> str:
    if wish.for_games:
        if GAMES in states.leases:
            raise LeaseRefused(f"there is a lease {GAMES} already", hint=f"mmd lease end {GAMES}")
        return GAMES
    taken = (*states.leases, GAMES)
    if wish.name is None:
        return new_name(program.split(" ", 1)[0], taken)
    if not is_valid_name(wish.name) or wish.name == GAMES:
        message = f"{wish.name!r} cannot be the name of a lease: use lower-case letters, digits and . _ -, at most 32"
        raise WrongUsage(message, hint="mmd lease --name render -- COMMAND")
    if wish.name in states.leases:
        hint = f"mmd lease list   # choose another --name, or: mmd lease end {wish.name}"
        raise LeaseRefused(f"there is a lease {wish.name} already", hint=hint)
    return wish.name


def _size_mib(wish: LeaseWish) -> int | None:
    if wish.vram is None:
        return None
    size_bytes = read_size(wish.vram)
    if not size_bytes or size_bytes < MIB:
        raise WrongUsage(f"{wish.vram!r} is not a size, like 10G or 512M", hint="mmd lease --vram 10G -- COMMAND")
    return size_bytes // MIB

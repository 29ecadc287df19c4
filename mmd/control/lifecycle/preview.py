"""Where a model would lie if it were activated: the placement of an activation, without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mmd.control.lifecycle.idle_rules import pinned_models
from mmd.control.lifecycle.light_models import LightModels
from mmd.control.lifecycle.planner import plan_demand
from mmd.control.memory.estimate import Estimator
from mmd.errors import ManagerUnreachable
from mmd.machine import Machine
from mmd.plan.placement.arrange import Arrangement, arrange
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.occupancy import Use, held, occupancy
from mmd.plan.placement.place import Occupant
from mmd.plan.share import Share, total_share
from mmd.quantities import MIB
from mmd.registry.record import Model
from mmd.settings import Settings
from mmd.units.watch import UnitStates, read_states


@dataclass(frozen=True, slots=True)
class Preview:
    """What an activation would do on this machine as it is now."""

    devices: Mapping[str, int] = field(default_factory=dict)  # bytes that the model would have of each
    context: int | None = None  # tokens; None if the engine takes what fits, up to the trained context
    unloads: Mapping[str, str] = field(default_factory=dict)  # other models -> the reason
    refused: str = ""  # why it cannot be placed


def preview(
    model: Model,
    machine: Machine,
    settings: Settings,
    *,
    occupants: Sequence[Occupant] = (),
    registered: Sequence[Model] = (),
) -> Preview:
    """Place a model beside what holds memory now, or return where it is resident.

    `registered` models that are light get room, as in an activation. Raises EngineMissing, DoesNotFit, and BadModelFile
    if its files are gone.
    """
    devices = devices_of(machine, total_share(one.holds for one in occupants), safe_maximum=settings.gpu.safe_maximum)
    estimator = Estimator(machine, settings)

    def plan(one: Model) -> Demand:
        return plan_demand(one, machine, settings, devices, estimator)

    demand = plan(model)
    others = (one for one in registered if one.id != model.id)
    light = LightModels().demands(others, machine, settings, devices, plan)
    own = next((one for one in occupants if one.model_id == model.id), None)
    if own is not None and not own.is_asleep:
        return _placed(own.uses)
    at = {} if own is None else {model.id: own.uses}
    found = arrange(
        [demand], occupants, devices, light=light, at=at, by_user=True, one_each=settings.gpu.residency == "one"
    )
    if not isinstance(found, Arrangement):
        return Preview(refused=found.why)
    allocation = found.allocations[model.id]
    context = settings.model(model.id).context or allocation.tokens
    return replace(_placed(allocation.share), context=context, unloads=found.placement.why)


def _placed(share: Share) -> Preview:
    return Preview({device: size_mib * MIB for device, size_mib in share.items()})


async def states_if_known() -> UnitStates | None:
    """Return the units of models and leases; None without a user manager, which would run them."""
    from mmd.units.bus import Manager

    with suppress(ManagerUnreachable):
        async with await Manager.connect() as manager:
            return await read_states(manager)
    return None


def occupants_of(states: UnitStates, machine: Machine, settings: Settings) -> tuple[Occupant, ...]:
    """Return the models and leases that hold memory, or are about to, as their units say."""
    uses = {model_id: Use(pinned=True) for model_id in pinned_models(settings)}
    devices = devices_of(machine, held(states.pairs, states.leases), safe_maximum=settings.gpu.safe_maximum)
    return occupancy(states.pairs, states.leases, devices, uses).occupants

"""What the registered light models need, for which heavy models leave room: every swap asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from mmd.errors import MmdError

if TYPE_CHECKING:
    from mmd.machine import Machine
    from mmd.plan.placement.demand import Demand
    from mmd.plan.placement.place import Device
    from mmd.registry.record import Model
    from mmd.settings import Settings

# Another version of an engine and the measurements of starts change a demand a little.
_KEPT_SECONDS = 600.0

_PlanDemand = Callable[["Model"], "Demand"]


@dataclass(frozen=True, slots=True)
class _Known:
    basis: tuple[object, ...]
    at: float
    demands: tuple[Demand, ...]


class LightModels:
    """The demands of embedding, reranking and classification models, kept while models, settings and GPUs stay."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def demands(
        self,
        models: Iterable[Model],
        machine: Machine,
        settings: Settings,
        devices: Sequence[Device],
        plan: _PlanDemand,
    ) -> tuple[Demand, ...]:
        """Return the demands on these devices; `plan` returns that of one model. Models that cannot run have none."""
        light = tuple(model for model in models if not model.facts.type.generates)
        gpus = tuple((gpu.uuid, gpu.total_bytes) for gpu in machine.gpus)
        tables = tuple(settings.model(model.id) for model in light)
        basis = light, tables, settings.engines, gpus, machine.driver
        known = self._known
        if known is None or known.basis != basis or monotonic() - known.at > _KEPT_SECONDS:
            known = self._known = _Known(basis, monotonic(), tuple(_planned(light, plan)))
        return tuple(demand.on(devices) for demand in known.demands)


def _planned(models: Iterable[Model], plan: _PlanDemand) -> Iterable[Demand]:
    for model in models:
        try:
            yield plan(model)
        except MmdError:  # it cannot run here, so no room is left for it
            continue

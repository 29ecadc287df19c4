"""The demands of light models: planned once, until something that they depend on changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mmd.control.lifecycle import light_models
from mmd.control.lifecycle.light_models import LightModels
from mmd.errors import DoesNotFit
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.place import Device
from mmd.registry.record import Model
from mmd.settings import ModelTable, Settings
from tests.unit.plan.placement.test_demand import RTX_4090, demand, with_gpus
from tests.unit.plan.planned import CHAT, EMBEDDING, RERANKER

DEVICES = devices_of(RTX_4090, {})


class Planning:
    """Counts the models that were planned."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.light = LightModels()

    def demands(
        self, *models: Model, settings: Settings | None = None, devices: Sequence[Device] = DEVICES
    ) -> dict[str, Demand]:
        self.models.clear()
        found = self.light.demands(models, RTX_4090, settings or Settings(), devices, self._plan)
        return {one.model_id: one for one in found}

    def _plan(self, model: Model) -> Demand:
        self.models.append(model.id)
        if model.id == "too-large":
            raise DoesNotFit("", hint="")
        return demand(model)


def test_only_light_models_are_planned_and_only_once() -> None:
    planning = Planning()
    assert planning.demands(CHAT, EMBEDDING, RERANKER).keys() == {EMBEDDING.id, RERANKER.id}
    assert planning.models == [EMBEDDING.id, RERANKER.id]
    assert planning.demands(CHAT, EMBEDDING, RERANKER).keys() == {EMBEDDING.id, RERANKER.id}
    assert planning.models == []


def test_demand_has_the_devices_of_each_call() -> None:
    planning = Planning()
    planning.demands(EMBEDDING)
    (gpu, ram) = DEVICES
    fuller = planning.demands(EMBEDDING, devices=[replace(gpu, capacity_mib=5000), ram])[EMBEDDING.id]
    assert [device.capacity_mib for device in fuller.devices] == [5000]
    assert planning.models == []


def test_changed_models_and_settings_are_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    planning = Planning()
    planning.demands(EMBEDDING)
    planning.demands(EMBEDDING, RERANKER)
    assert planning.models == [EMBEDDING.id, RERANKER.id]
    changed = Settings(models={RERANKER.id: ModelTable(context=1024)})
    planning.demands(EMBEDDING, RERANKER, settings=changed)
    assert planning.models == [EMBEDDING.id, RERANKER.id]
    monkeypatch.setattr(light_models, "_KEPT_SECONDS", -1.0)
    planning.demands(EMBEDDING, RERANKER, settings=changed)
    assert planning.models == [EMBEDDING.id, RERANKER.id], "after a while"


def test_other_gpus_are_planned_again() -> None:
    light, planned = LightModels(), []

    def plan(model: Model) -> Demand:
        planned.append(model.id)
        return demand(model)

    for on in (RTX_4090, with_gpus(24, 24), with_gpus(24, 24)):
        light.demands([EMBEDDING], on, Settings(), devices_of(on, {}), plan)
    assert planned == [EMBEDDING.id] * 2


def test_model_that_cannot_run_gets_no_room() -> None:
    assert Planning().demands(replace(RERANKER, id="too-large"), EMBEDDING).keys() == {EMBEDDING.id}

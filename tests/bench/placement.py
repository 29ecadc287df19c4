"""The time of one placement: a pure function, so it is called directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from mmd.machine import Gpu, Machine
from mmd.plan.needs import demand_of
from mmd.plan.placement.arrange import arrange
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.place import CannotPlace, Device, Occupant, Shape, Wanted, place
from mmd.quantities import GIB
from mmd.registry.detect import examine
from mmd.registry.record import Model
from tests.bench.measure import Row
from tests.unit.plan.planned import LLAMA_SERVER
from tests.well_known import GEMMA_3_12B, LLAMA_31_8B, QWEN3_06B, QWEN3_8B

_RUNS = 200
_MODELS = 50
_SHAPES = (LLAMA_31_8B, QWEN3_8B, GEMMA_3_12B, QWEN3_06B)


def measure(folder: Path) -> list[Row]:
    return [
        Row("place: 3 wanted, 12 occupants, 4 GPUs", "ms", _placed(), "≤ 5"),
        *_arranged(folder),
    ]


def _placed() -> list[float]:
    devices = [Device(f"g{number}", 24000) for number in range(4)]
    occupants = [
        Occupant(
            f"o{number}", {f"g{number % 4}": 7000}, {f"g{number % 4}": 1280} if number % 2 else None, last_used=number
        )
        for number in range(12)
    ]
    wanted = [
        Wanted("big", (Shape(1, 40000), Shape(2, 21000), Shape(4, 11000))),
        Wanted("embed", (Shape(1, 1500),)),
        Wanted("rerank", (Shape(1, 1200),)),
    ]
    return _times(lambda: place(wanted, occupants, devices))


def _arranged(folder: Path) -> list[Row]:
    """Measure the whole decision for one of 50 registered models: its demand, those of light models, placement."""
    gpus = tuple(Gpu(number, "GPU", f"GPU-{number}0000000-0", "8.6", 24 * GIB, 24 * GIB, ()) for number in range(4))
    machine = Machine(gpus, "580", 64 * GIB, 60 * GIB, "CPU", 8, 16)
    devices = devices_of(machine, {})
    models = []
    for number in range(_MODELS):
        path = _SHAPES[number % len(_SHAPES)].write(folder / f"m{number}.gguf")
        models.append(
            Model(f"m{number}", str(path), (str(path),), None, "file", "2026-01-01T00:00:00Z", "", examine(path).facts)
        )
    occupants = [
        Occupant(f"o{number}", {devices[number % 4].id: 7000}, last_used=number, grows=True) for number in range(12)
    ]

    def demands(wanted: Sequence[Model]) -> list[Demand]:
        return [demand_of(one, machine, [LLAMA_SERVER], devices) for one in wanted]

    def arranged() -> None:
        first, *light = demands([models[0], *models[3:12:4]])
        found = arrange([first], occupants, devices, light=light)
        assert not isinstance(found, CannotPlace)

    return [
        Row(f"demands of {_MODELS} models", "ms", _times(lambda: demands(models))),
        Row("demand and arrange: 1 wanted, 12 occupants, 4 GPUs, 3 light models", "ms", _times(arranged), "≤ 5"),
    ]


def _times(work: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(_RUNS):
        began = perf_counter()
        work()
        times.append((perf_counter() - began) * 1000)
    return times

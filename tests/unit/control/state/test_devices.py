"""Who uses the memory of each device."""

from __future__ import annotations

from dataclasses import replace

from mmd.control.state.devices import DeviceUse, device_uses, measured_bytes
from mmd.control.state.status import Unloaded, unloaded_models
from mmd.control.state.swap_events import SwapEvent
from mmd.machine import Gpu, GpuProcess
from mmd.plan.lease import LeasePair
from mmd.plan.pressure import Ram
from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding
from mmd.quantities import GIB, MIB

GPU = "GPU-8a3b1c2d"
OTHER = "GPU-00000001"
UP = UnitState("active", "running", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
RAM = Ram(available_bytes=10 * GIB, total_bytes=32 * GIB)


def gpu(*processes: GpuProcess, used: int, uuid: str = f"{GPU}-0000-0000-0000-000000000000", index: int = 0) -> Gpu:
    return Gpu(index, "RTX 3090", uuid, "8.6", 24 * GIB, 24 * GIB - used, processes)


def process(unit: str, used: int | None, pid: int = 1) -> GpuProcess:
    return GpuProcess(pid, used, "engine", unit)


def resident(holds: dict[str, int], keeps: dict[str, int] | None = None) -> Pair:
    return Pair(UP, HELD, Holding(holds, keeps), "llama-server", "chat")


def test_memory_is_divided_between_models_and_others() -> None:
    processes = (
        process("mmd-model@a.service", 9 * GIB),
        process("mmd-model@e.service", GIB, 2),
        process("app-steam.scope", 3 * GIB, 3),
    )
    pairs = {"a": resident({GPU: 10240}), "e": resident({GPU: 2048})}
    use, ram = device_uses([gpu(*processes, used=14 * GIB)], RAM, pairs, {})
    assert use == DeviceUse(
        GPU,
        "RTX 3090",
        0,
        total_bytes=24 * GIB,
        capacity_bytes=20 * GIB - 256 * MIB,  # without other programs and the margin
        held_bytes=12 * GIB,
        mmd_bytes=10 * GIB,
        others_bytes=4 * GIB,
        free_bytes=10 * GIB,
    )
    assert (ram.id, ram.index, ram.total_bytes, ram.free_bytes) == ("ram", None, 32 * GIB, 10 * GIB)
    assert measured_bytes([gpu(*processes, used=14 * GIB)]) == {"a": {GPU: 9 * GIB}, "e": {GPU: GIB}}


def test_driver_that_reports_no_process_leaves_what_models_hold() -> None:
    here = gpu(process("mmd-model@a.service", None), used=12 * GIB)
    use, _ = device_uses([here], RAM, {"a": resident({GPU: 10240})}, {})
    assert (use.held_bytes, use.mmd_bytes, use.others_bytes) == (10 * GIB, 10 * GIB, 2 * GIB)
    assert measured_bytes([here]) == {}


def test_model_on_two_gpus_is_measured_on_each() -> None:
    gpus = [
        gpu(process("mmd-model@a.service", GIB), used=GIB),
        gpu(process("mmd-model@a.service", 2 * GIB, 2), used=2 * GIB, uuid=f"{OTHER}-0000", index=1),
    ]
    assert measured_bytes(gpus) == {"a": {GPU: GIB, OTHER: 2 * GIB}}
    first, second, _ = device_uses(gpus, RAM, {"a": resident({GPU: 2048, OTHER: 4096})}, {})
    assert (first.held_bytes, second.held_bytes) == (2 * GIB, 4 * GIB)


def test_sleeping_model_holds_what_it_keeps() -> None:
    asleep = replace(resident({GPU: 10240}, {GPU: 1280}), token=UnitState(), kept={GPU: 1280})
    use, _ = device_uses([gpu(used=0)], RAM, {"a": asleep}, {})
    assert use.held_bytes == 1280 * MIB


def test_model_whose_engine_is_down_holds_nothing() -> None:
    failed = replace(resident({GPU: 10240}), engine=UnitState("failed", "failed", loaded=True))
    use, _ = device_uses([gpu(used=0)], RAM, {"a": failed}, {})
    assert use.held_bytes == 0


def test_program_of_a_lease_is_not_another_program() -> None:
    lease = LeasePair(UP, HELD, {GPU: 4096}, "blender")
    here = gpu(process("app-blender.scope", 3 * GIB), used=5 * GIB)
    use, _ = device_uses([here], RAM, {}, {"blender": lease})
    assert (use.held_bytes, use.mmd_bytes, use.others_bytes) == (4 * GIB, 4 * GIB, GIB)


def test_ram_counts_models_on_the_cpu_and_sleepers() -> None:
    (ram,) = device_uses([], RAM, {"c": resident({"ram": 2048})}, {}, asleep_ram_bytes=3 * GIB)
    assert (ram.held_bytes, ram.mmd_bytes, ram.others_bytes) == (2 * GIB, 5 * GIB, 17 * GIB)


def swap(model: str, *evicted: str, at: str = "1", **why: str) -> SwapEvent:
    return SwapEvent(at, model, evicted, "resident", "not loaded", "", 1.0, {}, why_evicted=why)


def test_unloaded_models_have_the_reason() -> None:
    events = [swap("c", "a", at="1", a="in use"), swap("d", "b", at="2")]
    assert unloaded_models(events, {}) == (Unloaded("b", "d", "", "2"), Unloaded("a", "c", "in use", "1"))


def test_model_that_is_loaded_again_is_not_unloaded() -> None:
    events = [swap("b", "a"), swap("a", "b")]
    assert [one.id for one in unloaded_models(events, {})] == ["b"]
    assert unloaded_models(events, {"b": resident({GPU: 1})}) == ()

"""How much of each device mmd may use, beside other programs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmd.machine import GpuProcess, Machine
from mmd.plan.placement.devices import SafeMaximum, devices_of, other_programs
from tests.unit.plan.planned import GIB, machine

MIB = 1024**2
RTX_4090 = machine("rtx4090-24g")
GPU, OTHER = "GPU-b7a9d3f2", "GPU-5e60c1aa"
OURS = GpuProcess(7, 10 * GIB, "vllm", "mmd-model@a.service")


def capacity_mib(
    *processes: GpuProcess, used_gib: float, held_mib: int = 0, lease_pids: tuple[int, ...] = (), total_gib: int = 24
) -> int:
    total_bytes = total_gib * GIB
    free_bytes = total_bytes - int(used_gib * GIB)
    gpu = replace(RTX_4090.gpus[0], total_bytes=total_bytes, free_bytes=free_bytes, processes=processes)
    on = replace(RTX_4090, gpus=(gpu,))
    found = {device.id: device.capacity_mib for device in devices_of(on, {GPU: held_mib}, lease_pids=lease_pids)}
    return found[GPU]


def test_margin_is_left_of_an_empty_gpu() -> None:
    assert capacity_mib(used_gib=0) == 24 * 1024 - 256


def test_desktop_gets_more() -> None:
    assert capacity_mib(GpuProcess(1, GIB // 2, "gnome-shell"), used_gib=0.5) == 24 * 1024 - 512 - 1024


def test_foreign_memory_is_not_ours() -> None:
    assert capacity_mib(OURS, GpuProcess(2, 6 * GIB, "game"), used_gib=16, held_mib=10240) == 18 * 1024 - 256


def test_models_still_loading_hide_no_foreign_memory() -> None:
    assert capacity_mib(GpuProcess(2, 6 * GIB, "game"), used_gib=6, held_mib=10240) == 18 * 1024 - 256


def test_ledger_counts_if_the_driver_does_not_report_processes() -> None:
    assert capacity_mib(used_gib=16, held_mib=10240) == 18 * 1024 - 256
    unknown = replace(OURS, used_bytes=None)
    assert capacity_mib(unknown, used_gib=16, held_mib=10240) == 18 * 1024 - 256


def test_holder_of_a_lease_is_not_foreign() -> None:
    job = GpuProcess(9, 6 * GIB, "python")
    assert capacity_mib(job, used_gib=6, held_mib=8192, lease_pids=(9,)) == 24 * 1024 - 256
    assert capacity_mib(job, used_gib=6, held_mib=8192) == 18 * 1024 - 256


def test_process_that_has_just_ended_is_not_foreign() -> None:
    """For a moment after a crash a GPU counted as twice as full: by the ledger, and as another program's memory."""
    ended = GpuProcess(7, 10 * GIB, "")
    game = GpuProcess(2, 6 * GIB, "game")
    assert capacity_mib(ended, game, used_gib=16, held_mib=10240) == 18 * 1024 - 256
    assert capacity_mib(ended, used_gib=10, held_mib=4096) == 18 * 1024 - 256, "more than models hold is foreign"
    assert capacity_mib(OURS, ended, used_gib=20, held_mib=10240) == 14 * 1024 - 256, "models are seen in full"


def test_program_that_uses_most_is_named() -> None:
    processes = (OURS, GpuProcess(2, 6 * GIB, "blender"), GpuProcess(3, GIB, "firefox"))
    gpu = replace(RTX_4090.gpus[0], total_bytes=24 * GIB, free_bytes=7 * GIB, processes=processes)
    on = replace(RTX_4090, gpus=(gpu,))
    assert other_programs(on, {GPU: 10240}) == f"other programs use 7.0 GiB of {GPU}, blender most of it"
    assert (
        other_programs(on, {GPU: 10240}, lease_pids=(2,)) == f"other programs use 1.0 GiB of {GPU}, firefox most of it"
    )
    assert other_programs(on, {GPU: 10240}, lease_pids=(2, 3)) == ""
    unseen = replace(on, gpus=(replace(gpu, processes=()),))
    assert other_programs(unseen, {GPU: 10240}) == f"other programs use 7.0 GiB of {GPU}"


@pytest.mark.parametrize(
    ("setting", "capacities"),
    [
        (None, {GPU: 23856, OTHER: 24308, "ram": 57732}),
        ("15.5G", {GPU: 15872, OTHER: 15872, "ram": 57732}),
        ("500G", {GPU: 23856, OTHER: 24308, "ram": 57732}),
        ({"1": "8G", "ram": "32 GiB"}, {GPU: 23856, OTHER: 8192, "ram": 32768}),
        ({"GPU-B7A9D3F2": "8G"}, {GPU: 8192, OTHER: 24308, "ram": 57732}),
        ({"7": "8G"}, {GPU: 23856, OTHER: 24308, "ram": 57732}),
    ],
    ids=["not set", "each GPU", "more than there is", "by index", "by UUID", "not there"],
)
def test_safe_maximum_limits_devices(setting: SafeMaximum, capacities: dict[str, int]) -> None:
    (first,) = RTX_4090.gpus
    other = replace(first, index=1, uuid=f"{OTHER}-1111-2222-3333-444455556666", free_bytes=first.total_bytes)
    found = devices_of(replace(RTX_4090, gpus=(first, other)), {}, safe_maximum=setting)
    assert {device.id: device.capacity_mib for device in found} == capacities


def test_capacity_is_never_negative() -> None:
    assert capacity_mib(GpuProcess(2, 24 * GIB, "game"), used_gib=24) == 0


def test_ram_is_a_device_of_every_machine() -> None:
    (ram,) = devices_of(machine("cpu-only"), {})
    assert (ram.id, ram.capacity_mib) == ("ram", 14269)
    ids = [device.id for device in devices_of(_twice(RTX_4090), {})]
    assert ids == [gpu.uuid for gpu in _twice(RTX_4090).gpus] + ["ram"], "in full, as the starts of the UUIDs are equal"


def _twice(on: Machine) -> Machine:
    other = replace(on.gpus[0], index=1, uuid=f"{GPU}-1111-2222-3333-444455556666")
    return replace(on, gpus=(on.gpus[0], other))

"""The check of what models and leases hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmd.control.doctor.diagnosis import Level
from mmd.control.doctor.residents import DeviceHolders, check_residents
from mmd.machine import Gpu, GpuProcess
from mmd.plan.lease import LeasePair
from mmd.plan.placement.place import Device
from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding
from tests.unit.plan.planned import GIB

GPU = "GPU-8a3b1c2d"
UP = UnitState("active", "running", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
CARD = Gpu(0, "RTX 3090", f"{GPU}-0000-0000-0000-000000000000", "8.6", 24 * GIB, 24 * GIB, ())
RESIDENT = Pair(UP, HELD, Holding({GPU: 10240}, {GPU: 1280}))
LEASE = LeasePair(UP, HELD, {GPU: 4096}, "blender")
NOTHING = DeviceHolders({}, {}, (CARD,), (Device(GPU, 23 * 1024), Device("ram", 30 * 1024)))
UNTOLD = replace(CARD, processes=(GpuProcess(1, None, "vllm", "mmd-model@a.service"),))


@pytest.mark.parametrize(
    ("here", "state", "says", "hint"),
    [
        (NOTHING, Level.OK, "no model or lease holds memory", ""),
        (
            replace(NOTHING, pairs={"a": RESIDENT, "b": RESIDENT}, leases={"blender": LEASE}),
            Level.WARNING,
            "hold 24.0 GiB of GPU 0, of which other programs leave only 23.0 GiB",
            "mmd stop a   # the largest of: a, b, lease@blender",
        ),
        (
            replace(NOTHING, pairs={"a": RESIDENT}, leases={"blender": LEASE}),
            Level.OK,
            "models and leases hold 14.0 GiB of 23.0 GiB on GPU 0",
            "",
        ),
        (replace(NOTHING, pairs={"a": RESIDENT}, gpus=(UNTOLD,)), Level.OK, "does not report use per process", ""),
        (
            replace(NOTHING, pairs={"a": RESIDENT, "b": replace(RESIDENT, holding=Holding({GPU: 15000}))}),
            Level.FAILED,
            "hold 24.6 GiB of GPU 0, which has only 24.0 GiB",
            "mmd stop b   # the largest of: a, b",
        ),
        (
            replace(NOTHING, leases={"x": replace(LEASE, holder=UnitState(), token=UnitState(loaded=True))}),
            Level.OK,
            "no model or lease holds memory",
            "",
        ),
        (
            replace(NOTHING, leases={"x": replace(LEASE, holder=UnitState())}),
            Level.WARNING,
            "the program of the lease x has ended, but it still holds 4.0 GiB of GPU 0",
            "systemctl --user stop mmd-resident@lease@x.service",
        ),
        (
            replace(NOTHING, pairs={"old": replace(RESIDENT, holding=None)}),
            Level.WARNING,
            "an older mmd started old",
            "mmd stop old && mmd activate old",
        ),
        (
            replace(NOTHING, devices=(Device(GPU, 300),)),
            Level.WARNING,
            "leave models 0.3 GiB of GPU 0",
            "mmd status",
        ),
        (replace(NOTHING, gpus=(), devices=(Device("ram", 100),)), Level.OK, "no model or lease", ""),
    ],
)
def test_what_holds_the_devices(here: DeviceHolders, state: Level, says: str, hint: str) -> None:
    (found,) = check_residents(here)
    assert (found.state, says in found.message) == (state, True), found
    assert hint in found.hint

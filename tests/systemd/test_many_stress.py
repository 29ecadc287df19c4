"""Random operations by three planners, a person and a killer on two GPUs: never more memory than a GPU has, and
everything comes up afterwards. What does not notice a broken hook tests nothing, so the hooks are broken, too.

`MMD_TEST_STRESS=2000` runs as many operations; `python -m tests.systemd.stress` runs it alone.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import pytest

from mmd.errors import MmdError
from tests.systemd.stress.hooks import (
    HELD_READ_TWICE,
    KEEPS_REMOVED_AFTER_WAKE,
    NO_GATE,
    RELEASE_IS_KILLED,
    RELEASE_IS_KILLED_LATE,
    WAKE_IS_KILLED,
    Change,
    endanger,
    hooks_folder,
    spare,
)
from tests.systemd.stress.run import Stress
from tests.systemd.stress.scene import GPUS_GIB, furnish
from tests.systemd.world import World

OPERATIONS = int(os.environ.get("MMD_TEST_STRESS", "400"))
KILLED_SHARE = 0.12  # of the hooks
SEED = 12


@pytest.mark.timeout(120 + OPERATIONS)
def test_never_more_than_a_gpu_has(world: World, fake_llama_server: Path) -> None:
    gpus = world.add_gpus(*GPUS_GIB)
    furnish(world, fake_llama_server)
    report = Stress(world, gpus, hooks_folder(world.folder, killed_share=KILLED_SHARE), SEED).run(OPERATIONS)
    print(report)
    assert report.problems == []
    assert report.allocations > OPERATIONS / 10


@pytest.mark.timeout(300)
def test_stress_notices_a_gate_that_admits_everybody(world: World, fake_llama_server: Path) -> None:
    gpus = world.add_gpus(*GPUS_GIB)
    furnish(world, fake_llama_server)
    stress = Stress(world, gpus, hooks_folder(world.folder, NO_GATE), SEED)
    report = stress.run(1000, stops_at_fault=True, seconds=120.0)
    assert report.faults, str(report)
    world.forgive_faults()


@pytest.mark.parametrize("broken", [(), (HELD_READ_TWICE,)], ids=["whole", "held is read twice"])
async def test_ledger_counts_a_model_whose_release_is_killed(world: World, broken: tuple[Change, ...]) -> None:
    """The gate waits for the sleeper, whose token disappears while its engine is awake."""
    await put_sleeper_in_the_way(world)
    async with world.controller(hooks_folder=hooks_folder(world.folder, RELEASE_IS_KILLED_LATE, *broken)) as mmd:
        await mmd.activate("sleeper")
        await attempt(mmd.activate("other"))
    check_faults(world, wanted=bool(broken))


@pytest.mark.parametrize("broken", [(), (KEEPS_REMOVED_AFTER_WAKE,)], ids=["whole", "keeps is removed after the wake"])
async def test_ledger_counts_a_model_whose_wake_is_killed(world: World, broken: tuple[Change, ...]) -> None:
    await put_sleeper_in_the_way(world)
    hooks = hooks_folder(world.folder, WAKE_IS_KILLED, RELEASE_IS_KILLED, *broken)
    spare(hooks)
    async with world.controller(hooks_folder=hooks) as mmd:
        await mmd.activate("sleeper")
        await mmd.activate("other")
        await mmd.stop("other")
        endanger(hooks)
        await attempt(mmd.activate("sleeper"))
        await attempt(mmd.activate("other"))
    check_faults(world, wanted=bool(broken))


async def put_sleeper_in_the_way(world: World) -> None:
    """Add two models that do not fit beside each other, of which one sleeps."""
    world.add_gpus(24)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized_vllm("sleeper", 14, keeps_mib=900)
    world.add_sized("other", 14)


async def attempt(work: Awaitable[object]) -> None:
    """Whether it succeeds is not the question."""
    with suppress(MmdError):
        await work


def check_faults(world: World, *, wanted: bool) -> None:
    assert bool(world.faults()) == wanted, world.faults()
    world.forgive_faults()

"""Units that mmd 0.2 has made, under this mmd: their descriptions name no share, so they count as the whole machine."""

from __future__ import annotations

import pytest

from mmd.control.lifecycle.controller import Controller, unit_hooks
from mmd.units.names import engine_unit
from tests.systemd.old_units import old_units
from tests.systemd.world import World

GIB = 1024**3


async def start_old(mmd: Controller, model_id: str) -> None:
    """Make a model resident as mmd 0.2 did: the token in one call, with its engine beside it."""
    token, engine = old_units(await mmd.planner.launch(model_id), unit_hooks())
    await (await mmd.manager.submit(engine_unit(model_id), mmd.manager.start_transient(token, engine))).result()


@pytest.fixture
def machine(world: World) -> World:
    """A machine on which the old models have 14 GiB of the first GPU, and would fit beside the new one."""
    world.add_gpus(24, 16)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized("old", 14, weights_bytes=14 * GIB)
    world.add_sized_vllm("sleeper", 14, weights_bytes=14 * GIB)
    world.add_sized("new", 4)
    return world


@pytest.mark.parametrize("old", ["old", "sleeper"])
async def test_resident_of_the_old_mmd_counts_as_the_whole_machine(machine: World, old: str) -> None:
    async with machine.controller() as mmd:
        await start_old(mmd, old)
        assert (await mmd.status()).resident_ids == (old,)
        done = await mmd.activate("new")
        assert done.evicted == (old,)
        assert (await mmd.status()).resident_ids == ("new",)
        machine.behave(old)  # from now on it takes its share
        await mmd.activate(old)
        assert set((await mmd.status()).resident_ids) == {"new", old}


async def test_sleeper_of_the_old_mmd_is_started_again(machine: World) -> None:
    """Nothing says what it keeps, and it would wake on GPUs that were not planned for it."""
    async with machine.controller() as mmd:
        await start_old(mmd, "sleeper")
        await mmd.sleep("sleeper")
        machine.behave("sleeper")
        await mmd.activate("new")
        await mmd.activate("sleeper")
        assert set((await mmd.status()).resident_ids) == {"new", "sleeper"}


async def test_old_resident_is_put_to_sleep_and_stopped_by_its_name(machine: World) -> None:
    async with machine.controller() as mmd:
        await start_old(mmd, "old")
        assert await mmd.sleep() == ("old",)
        assert (await mmd.status()).resident_ids == ()
        await start_old(mmd, "old")
        await mmd.stop("old")
        assert (await mmd.status()).resident_ids == ()

"""Machines with several GPUs on a real user manager: what lies where, and that no GPU holds more than it has."""

from __future__ import annotations

import asyncio

from tests.systemd.world import World, run_mmd

MIB = 1024**2


async def test_machine_of_two_gpus_is_read_by_every_process(world: World) -> None:
    gpus = world.add_gpus(24, 16)
    world.add_sized("chat", 14)
    async with world.controller() as mmd:
        first, second = (await mmd.reader.machine()).gpus
        launch = await mmd.planner.launch("chat")
        assert (first.uuid, second.uuid) == gpus.uuids
        assert (first.free_bytes, second.free_bytes) == (24 * 1024 * MIB, 16 * 1024 * MIB)
        assert launch.uses_gpu
        assert 14 * 1024 * MIB < launch.needs_bytes < 17 * 1024 * MIB
        await mmd.activate("chat")
        assert (await mmd.status()).active == "chat"
    shown = await asyncio.to_thread(run_mmd, "machine", "--json")
    assert all(uuid in shown.stdout for uuid in gpus.uuids)


async def test_models_of_a_given_size_start_asleep_and_awake(world: World) -> None:
    """The world of these tests: a vLLM that sleeps, with as much memory as its header says."""
    world.add_gpus(24, 24)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n')
    world.add_sized_vllm("sleeper", 14)
    world.add_sized("light", 1, embedding=True)
    async with world.controller() as mmd:
        launch = await mmd.planner.launch("sleeper")
        assert launch.sleep is not None
        assert 13 * 1024 * MIB < launch.sleep.weights_bytes < 15 * 1024 * MIB
        assert (await mmd.planner.launch("light")).type == "embedding"
        await mmd.activate("sleeper")
        await mmd.sleep("sleeper")
        await mmd.activate("light")
        status = await mmd.status()
        assert ([one.id for one in status.sleeping], status.active) == (["sleeper"], "light")


async def test_member_of_a_set_starts_again_beside_the_others(world: World) -> None:
    """Its units stayed loaded as long as an engine was up that had loaded after it, and no start was possible."""
    world.add_gpus(24)
    world.settings("", residency="many")
    for name in "abc":
        world.add_sized(name, 2, embedding=True)
    async with world.controller() as mmd:
        await mmd.activate(("a", "b", "c"))
        await mmd.stop("a")
        await mmd.stop("b")
        assert (await mmd.status()).resident_ids == ("c",)
        done = await mmd.activate("a")
        assert done.seconds < 20
        assert set((await mmd.activate(("a", "b"))).model_ids) == {"a", "b"}
        assert (await mmd.status()).resident_ids == ("a", "b", "c")

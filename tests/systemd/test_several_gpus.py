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

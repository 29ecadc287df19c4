"""Placement on a real user manager and fake GPUs: what fits stays, and the engines get flags for their share.

The driver of these GPUs fails a test if the engines together take more than a GPU has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from mmd.errors import DoesNotFit, GpuPinned, PlacementChanged
from tests.systemd.world import World, run_mmd

MIB = 1024**2


def words_of(world: World, model_id: str) -> list[str]:
    """Return the command line of a running engine."""
    shown = world.manager.systemctl("show", f"mmd-model@{model_id}.service", "--property=ExecStart", "--value")
    return shown.partition("argv[]=")[2].partition(" ;")[0].split()


def environment_of(world: World, model_id: str) -> Mapping[str, str]:
    shown = world.manager.systemctl("show", f"mmd-model@{model_id}.service", "--property=Environment", "--value")
    return dict(pair.partition("=")[::2] for pair in shown.split())


async def test_embedder_stays_beside_chats_that_replace_each_other(world: World) -> None:
    world.add_gpus(24)
    world.settings("", residency="many")
    world.add_sized("first", 14, context=131072)
    world.add_sized("second", 12, context=131072)
    world.add_sized("embed", 0.5, context=512, embedding=True)
    async with world.controller() as mmd:
        await mmd.activate("first")
        await mmd.activate("embed")
        assert (await mmd.status()).resident_ids == ("embed", "first")
        swapped = await mmd.activate("second")
        assert swapped.evicted == ("first",)
        assert (await mmd.status()).resident_ids == ("embed", "second")
    words = words_of(world, "second")
    assert int(words[words.index("-c") + 1]) >= 16384, "it grew"
    assert "--fit-target" in words


async def test_two_chats_lie_on_two_gpus(world: World) -> None:
    gpus = world.add_gpus(24, 16)
    world.settings("", residency="many")
    world.add_sized("large", 16, context=32768)
    world.add_sized("small", 8, context=32768)
    async with world.controller() as mmd:
        await mmd.activate("small")
        await mmd.activate("large")
        assert (await mmd.status()).resident_ids == ("large", "small")
    first, second = gpus.uuids
    assert environment_of(world, "large")["CUDA_VISIBLE_DEVICES"] == first
    assert environment_of(world, "small")["CUDA_VISIBLE_DEVICES"] == second


async def test_activation_keeps_to_the_devices_it_may_use(world: World) -> None:
    first, second = (uuid[: len("GPU-") + 8] for uuid in world.add_gpus(24, 16).uuids)
    world.settings("", residency="many")
    world.add_sized("large", 16, context=32768)
    world.add_sized("small", 8, context=32768)
    async with world.controller() as mmd:
        with pytest.raises(PlacementChanged):
            await mmd.activate("large", devices={second})
        await mmd.activate("small", devices={first})
        (resident,) = (await mmd.status()).resident
    assert set(resident.devices) == {first}, "alone it prefers the fuller one"


async def test_model_larger_than_a_gpu_is_divided(world: World) -> None:
    gpus = world.add_gpus(24, 16)
    world.settings("", residency="many")
    world.add_sized("huge", 28, context=8192)
    world.add_sized("chat", 8, context=8192)
    async with world.controller() as mmd:
        await mmd.activate("chat")
        swapped = await mmd.activate("huge")
        assert swapped.evicted == ("chat",)
        (resident,) = (await mmd.status()).resident
        assert len(resident.devices) == 2
    assert environment_of(world, "huge")["CUDA_VISIBLE_DEVICES"] == ",".join(gpus.uuids)
    words = words_of(world, "huge")
    first, second = (int(part) for part in words[words.index("--tensor-split") + 1].split(","))
    assert first > second > 0, "more layers for the larger GPU"


async def test_vllm_beside_another_gets_pool_and_utilization(world: World) -> None:
    world.add_gpus(24)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized("embed", 0.5, context=512, embedding=True)
    world.add_sized_vllm("chat", 8, context=8192)
    async with world.controller() as mmd:
        await mmd.activate("embed")
        await mmd.activate("chat")
        assert (await mmd.status()).resident_ids == ("chat", "embed")
    words = words_of(world, "chat")
    assert words[words.index("--kv-cache-memory-bytes") + 1].endswith("M")
    assert 0 < float(words[words.index("--gpu-memory-utilization") + 1]) < 0.92


async def test_pinned_model_leaves_for_a_user_only(world: World) -> None:
    world.add_gpus(24)
    world.settings("[models.pin]\npinned = true\n", residency="many")
    world.add_sized("pin", 14, context=131072)
    world.add_sized("other", 14, context=131072)
    async with world.controller() as mmd:
        await mmd.activate("pin")
        with pytest.raises(GpuPinned, match=r"pin, which is pinned, holds"):
            await mmd.activate("other", by_user=False)
        assert (await mmd.status()).resident_ids == ("pin",)
        assert (await mmd.activate("other", by_user=True)).evicted == ("pin",)


async def test_show_says_what_an_activation_then_does(world: World) -> None:
    world.add_gpus(24)
    world.settings("", residency="many")
    world.add_sized("first", 14, context=131072)
    world.add_sized("second", 12, context=131072)
    async with world.controller() as mmd:
        await mmd.activate("first")
        text = (await asyncio.to_thread(run_mmd, "show", "second")).stdout
        assert "unloads first: the least recently used whose memory is enough" in text
        shown = json.loads((await asyncio.to_thread(run_mmd, "show", "second", "--json")).stdout)
        assert (await mmd.activate("second")).evicted == tuple(shown["place"]["unloads"])
        (resident,) = (await mmd.status()).resident
        assert resident.devices == shown["place"]["devices"]


async def test_safe_maximum_is_kept(world: World) -> None:
    world.add_gpus(24)
    world.add_sized("chat", 8, context=131072)
    world.settings('[gpu.safe_maximum]\n0 = "15.5G"\n', residency="many")
    async with world.controller() as mmd:
        await mmd.activate("chat")
        (resident,) = (await mmd.status()).resident
    assert sum(resident.devices.values()) == 15872 * MIB


async def test_memory_of_other_programs_is_left_to_them(world: World) -> None:
    gpus = world.add_gpus(24)
    world.settings(f'[engines]\nvllm = "{world.add_vllm()}"\n', residency="many")
    world.add_sized_vllm("chat", 14)
    world.add_sized("small", 2)
    lines = gpus.state.read_text().splitlines()
    gpus.state.write_text("\n".join([*lines[:-1], str(15 * 1024 * MIB)]) + "\n")
    async with world.controller() as mmd:
        with pytest.raises(DoesNotFit) as caught:
            await mmd.activate("chat")
        assert caught.value.message.endswith(f"; other programs use 15.0 GiB of {gpus.devices[0]}")
        await mmd.activate("small")
        (resident,) = (await mmd.status()).resident
        assert sum(resident.devices.values()) <= 9 * 1024 * MIB

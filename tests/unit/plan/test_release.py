from __future__ import annotations

from dataclasses import replace

import pytest

from mmd.machine import GpuProcess
from mmd.plan.choose import choose
from mmd.plan.launch import Sleep, WakeCheck
from mmd.plan.release import ReleaseEffect, machine_after_release, release_effect
from tests.unit.plan.planned import CHAT, GIB, LLAMA_SERVER, machine

ENGINE = "mmd-model@a.service"
ROOMY = machine("rtx4070-12g")
TOTAL_BYTES = ROOMY.gpus[0].total_bytes


def free_bytes(processes: tuple[GpuProcess, ...], leaving: dict[str, ReleaseEffect], *, free: int = 2 * GIB) -> int:
    crowded = replace(ROOMY, gpus=(replace(ROOMY.gpus[0], free_bytes=free, processes=processes),))
    return machine_after_release(crowded, leaving).gpus[0].free_bytes


@pytest.mark.parametrize(
    ("used", "kept", "expected"),
    [
        ((), 0, 2 * GIB),
        ((8 * GIB,), 0, 10 * GIB),
        ((8 * GIB,), GIB, 9 * GIB),
        ((3 * GIB, 3 * GIB), GIB, 7 * GIB),
        ((GIB // 2,), GIB, 2 * GIB),  # it sleeps already, in less than was thought
        ((TOTAL_BYTES,), 0, TOTAL_BYTES),  # shared pages are counted twice: never more than there is
        ((None,), GIB, TOTAL_BYTES - GIB),
    ],
)
def test_what_leaves_is_free_but_for_what_it_keeps(used: tuple[int | None, ...], kept: int, expected: int) -> None:
    processes = tuple(GpuProcess(pid, bytes_, "vllm", ENGINE) for pid, bytes_ in enumerate(used))
    assert free_bytes(processes, {ENGINE: ReleaseEffect(kept)}) == expected


def test_what_stays_is_not_counted() -> None:
    stays = (GpuProcess(1, 8 * GIB, "game", "app-game.scope"), GpuProcess(2, GIB, "Xorg", ""))
    assert free_bytes(stays, {ENGINE: ReleaseEffect()}) == 2 * GIB
    assert free_bytes(stays, {}) == 2 * GIB


def test_sleeper_keeps_context_on_the_gpu_and_weights_in_ram() -> None:
    launch = choose(CHAT, ROOMY, [LLAMA_SERVER], socket="/s", cache="/cache")
    assert release_effect(launch) == ReleaseEffect()  # it is stopped
    sleeper = replace(launch, sleep=Sleep((1, 2), 5 * GIB, GIB, WakeCheck.GENERATE))
    going = release_effect(sleeper)
    assert going.keeps_vram_bytes > GIB
    assert machine_after_release(ROOMY, {ENGINE: going}).ram_available_bytes == ROOMY.ram_available_bytes - 5 * GIB
    assert release_effect(replace(sleeper, share={"ram": 10240})) == ReleaseEffect()  # nothing moves

"""Failures of real life: each ends in an error that names the cause, with nothing lost."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mmd.hooks
from mmd.control.lifecycle.controller import Controller
from mmd.control.state.swap_events import recent
from mmd.errors import BadModelFile, EngineFailed, EngineMissing, SwapSuperseded
from mmd.paths import engine_socket
from mmd.plan.residency import Residency
from tests.systemd.stress.hooks import (
    RELEASE_IS_KILLED,
    RELEASE_IS_KILLED_ASLEEP,
    Change,
    endanger,
    hooks_folder,
    spare,
)
from tests.systemd.world import World, wait_for


async def test_missing_file_is_refused_before_an_unload(world: World) -> None:
    world.add("a", "b")
    (world.folder / "b.gguf").unlink()
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(BadModelFile, match=r"b\.gguf"):
            await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("a",)


def gate_that_refuses(model_id: str, why: str) -> Change:
    """`why` is an expression of the gate's Python."""
    return Change(
        "gate.py",
        "why_not = admission.enter()",
        f'why_not = {why} if admission.model_id == "{model_id}" else admission.enter()',
    )


async def test_model_comes_back_if_the_gate_keeps_refusing(world: World, tmp_path: Path) -> None:
    world.add("a", "b")
    hooks = hooks_folder(tmp_path, gate_that_refuses("b", "'a game takes the memory'"))
    async with world.controller(hooks_folder=hooks) as mmd:
        await mmd.activate("a")
        with pytest.raises(SwapSuperseded, match="a game takes the memory; a is resident again"):
            await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("a",)
    assert recent(1)[-1].cause.endswith("a is resident again")


async def test_model_comes_back_if_a_new_plan_fails(world: World, tmp_path: Path) -> None:
    """The first plan was refused when its model had left already."""
    world.add("a", "b")
    file = world.folder / "b.gguf"
    loses_its_file = f"(__import__('os').unlink('{file}') or 'no room')"
    hooks = hooks_folder(tmp_path, gate_that_refuses("b", loses_its_file))
    async with world.controller(hooks_folder=hooks) as mmd:
        await mmd.activate("a")
        with pytest.raises(BadModelFile):
            await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("a",)


async def test_missing_engine_is_refused_before_an_unload(world: World, fake_llama_server: object) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.settings('[engines]\nllama-server = "/nowhere/llama-server"\n')
    async with world.controller() as mmd:
        with pytest.raises(EngineMissing, match="/nowhere/llama-server"):
            await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("a",)


async def test_engine_exits_at_once_brings_the_previous_back(world: World) -> None:
    world.add("a", "b")
    world.behave("b", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(EngineFailed, match=r"gronk.*a is resident again") as failure:
            await mmd.activate("b")
        assert "mmd logs b" in failure.value.hint
        status = await mmd.status()
        assert (status.active, [one.id for one in status.failed]) == ("a", ["b"])
    assert recent(1)[0].cause == "the engine ended with status 1: error: unknown model architecture: 'gronk'"
    assert not world.events("overlap")


async def test_engine_that_exits_at_once_without_a_previous_model(world: World) -> None:
    world.add("b")
    world.behave("b", exit_at_once={"status": 1, "stderr": "error: out of luck"})
    async with world.controller() as mmd:
        with pytest.raises(EngineFailed, match="status 1: error: out of luck"):
            await mmd.activate("b")
        assert await mmd.residencies() == {"b": Residency.FAILED}
        world.behave("b")
        await mmd.activate("b")  # a past failure does not prevent a start
        assert (await mmd.status()).active == "b"


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ({"exit_while_loading_seconds": 0.2}, "unable to allocate CUDA0 buffer"),
        ({"never_ready": True}, "b did not start.*Not ready after 1 s"),
        ({"exit_at_once": {"status": 0, "stderr": "no work"}}, "ended by itself, with status 0: no work"),
    ],
    ids=["exits while loading", "is never ready", "exits with status 0"],
)
async def test_engine_that_does_not_start_restores_the_previous(
    world: World, behaviour: dict[str, Any], cause: str
) -> None:
    world.settings("[models.b]\nready_seconds = 1\n" if "never_ready" in behaviour else "")
    world.add("a", "b")
    world.behave("b", **behaviour)
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(EngineFailed, match=f"{cause}.*a is resident again"):
            await mmd.activate("b")
        assert (await mmd.status()).active == "a"


async def test_previous_that_cannot_come_back_is_said(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        for name in "ab":
            world.behave(name, exit_at_once={"status": 1, "stderr": "error: no"})
        with pytest.raises(EngineFailed, match="a did not start again either"):
            await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ()


async def test_previous_whose_file_is_gone_does_not_hide_the_cause(world: World) -> None:
    world.add("a", "b")
    world.behave("b", exit_at_once={"status": 3, "stderr": "error: no"})
    async with world.controller() as mmd:
        await mmd.activate("a")
        (world.folder / "a.gguf").unlink()
        with pytest.raises(EngineFailed, match=r"status 3: error: no; a cannot be restored: .*a\.gguf"):
            await mmd.activate("b")


async def test_previous_that_sleeps_is_woken_again(world: World) -> None:
    world.add("a", can_sleep=True)
    world.add("b")
    world.behave("b", exit_at_once={"status": 1, "stderr": "error: no"})
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(EngineFailed, match="a is resident again"):
            await mmd.activate("b")
        assert (await mmd.status()).active == "a"
    assert world.events("load-begin", "sleep", "wake") == [("load-begin", "a"), ("sleep", "a"), ("wake", "a")]


async def test_engine_that_ignores_sigterm_is_killed(world: World) -> None:
    world.add("a", ignore_sigterm=True)
    world.add("b")
    world.change_launch("a", stop_seconds=1)
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        assert (await mmd.status()).resident_ids == ("b",)
    assert not world.events("overlap")


async def test_engine_that_dies_while_serving_is_restarted(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.kill("a", signal.SIGKILL)
        wait_for(lambda: world.events("ready") == [("ready", "a")] * 2, what="a second start")
        await mmd.activate("a")  # joins the restart, or finds it done
        assert (await mmd.status()).active == "a"


async def test_engine_that_quits_when_its_core_dies_is_restarted(world: World) -> None:
    """vLLM then exits with status 0, and systemd took that for a regular end."""
    world.add("a")
    world.change_launch("a", exits_zero_on_crash=True)
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.kill("a", signal.SIGTERM)  # the fake then exits with status 0
        wait_for(lambda: world.events("ready") == [("ready", "a")] * 2, what="a second start")
        await mmd.activate("a")
        assert (await mmd.status()).active == "a"
        await mmd.stop("a")
        assert (await mmd.status()).resident_ids == ()
    assert len(world.events("start")) == 2


@pytest.mark.parametrize("status", [1, 2])
async def test_engine_with_a_named_core_failure_is_not_restarted(world: World, status: int) -> None:
    world.add("a", exit_at_once={"status": status, "stderr": "ValueError: it is too large"})
    world.change_launch("a", exits_zero_on_crash=True)
    async with world.controller() as mmd:
        with pytest.raises(EngineFailed, match=f"status {status}: it is too large"):
            await mmd.activate("a")
        assert [failed.id for failed in (await mmd.status()).failed] == ["a"]
    assert len(world.events("start")) == 1


async def test_engine_that_died_does_not_come_back_beside_the_next(world: World) -> None:
    """Its token stopped with it, so the next model met no conflict, and systemd restarted it on a GPU in use."""
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.kill("a", signal.SIGKILL)
        await mmd.activate("b")
        with pytest.raises(AssertionError, match="never"):
            await asyncio.to_thread(wait_for, lambda: world.events("load-begin")[2:] != [], what="a's", seconds=1)
        assert (await mmd.status()).resident_ids == ("b",)
    assert not world.events("overlap")


async def test_engine_that_crashes_during_load_is_not_restarted_later(world: World) -> None:
    """systemd's own restart loaded it beside the restored model."""
    world.add("a")
    world.add("b", load_seconds=5)
    async with world.controller() as mmd:
        await mmd.activate("a")
        swap = asyncio.create_task(mmd.activate("b"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "b") in world.events(), what="b's load")
        world.kill("b", signal.SIGSEGV)
        with pytest.raises(EngineFailed, match=r"killed by signal 11.*a is resident again"):
            await swap
        with pytest.raises(AssertionError, match="never"):
            await asyncio.to_thread(wait_for, lambda: world.events("load-begin")[3:] != [], what="b's", seconds=1)
        assert (await mmd.status()).resident_ids == ("a",)
    assert not world.events("overlap")


async def test_many_swaps_in_a_row_are_no_start_limit(world: World) -> None:
    """The sixth start of a token within ten seconds was refused, and its engine ran without one."""
    world.add("a", "b")
    async with world.controller() as mmd:
        for _ in range(8):
            for name in ("a", "b"):
                await mmd.activate(name)
                assert (await mmd.status()).resident_ids == (name,)
    assert not world.events("overlap")


async def test_engine_started_by_hand_without_its_token_is_skipped(world: World) -> None:
    world.add("a", "b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        await asyncio.to_thread(world.manager.systemctl, "start", "mmd-model@a.service")
        assert (await mmd.status()).resident_ids == ("b",)
        await mmd.activate("a")  # nor does it prevent a start
    assert not world.events("overlap")


async def test_crashes_up_to_the_start_limit_fail_and_can_be_retried(world: World) -> None:
    world.add("a")
    async with world.controller() as mmd:
        await mmd.activate("a")
        for start in range(1, 4):
            wait_for(partial(world.has_more, "ready", than=start - 1), what=f"start {start}")
            world.kill("a", signal.SIGKILL)
        wait_for(lambda: _active_state(world, "a") == "failed", what="the end of the restarts")
        assert [one.id for one in (await mmd.status()).failed] == ["a"]
        await mmd.activate("a")
        assert (await mmd.status()).active == "a"


async def test_engine_that_dies_asleep_does_not_load(world: World) -> None:
    """systemd restarts it while another model has the GPU, and the condition on its token skips the start."""
    world.add("a", can_sleep=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        await mmd.activate("b")
        world.kill("a", signal.SIGKILL)
        wait_for(lambda: _active_state(world, "a") in ("inactive", "failed", ""), what="the end of a's restart")
        assert (await mmd.status()).resident_ids == ("b",)
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
    assert world.events("load-begin") == [("load-begin", "a"), ("load-begin", "b"), ("load-begin", "a")]
    assert not world.events("overlap")


async def test_engine_that_hangs_in_sleep_is_ended(world: World) -> None:
    world.add("a", can_sleep=True, hang_in_sleep=True)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        done = await mmd.activate("b")
        assert done.seconds < 60
        status = await mmd.status()
        assert (status.resident_ids, status.sleeping) == (("b",), ())
    assert not world.events("overlap")


async def test_stale_socket_does_not_prevent_a_start(world: World) -> None:
    """Both engines refuse to start on a stale socket; systemd removes its folder, but not if the manager itself was
    killed.
    """
    world.add("a")
    stale = engine_socket("a")
    stale.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert (await mmd.status()).active == "a"


async def test_cli_killed_in_mid_swap_the_swap_goes_on(world: World) -> None:
    world.add("a")
    world.add("b", load_seconds=1.0)
    async with Controller() as mmd:  # with units as the CLI makes them
        await mmd.activate("a")
        cli = await asyncio.create_subprocess_exec(sys.executable, "-m", "mmd", "activate", "b")
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "b") in world.events(), what="b's load")
        cli.kill()
        await cli.wait()
        await mmd.activate("b")  # joins
        assert (await mmd.status()).resident_ids == ("b",)
    assert world.events("load-begin") == [("load-begin", "a"), ("load-begin", "b")]


async def test_manager_reexecuted_in_mid_swap(world: World) -> None:
    world.add("a")
    world.add("b", load_seconds=1.0)
    async with world.controller() as mmd:
        await mmd.activate("a")
        swap = asyncio.create_task(mmd.activate("b"))
        await asyncio.to_thread(wait_for, lambda: ("load-begin", "b") in world.events(), what="b's load")
        await asyncio.to_thread(world.manager.systemctl, "daemon-reexec")
        await swap
        assert (await mmd.status()).resident_ids == ("b",)
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)


@pytest.mark.parametrize("killed", [RELEASE_IS_KILLED, RELEASE_IS_KILLED_ASLEEP], ids=["at_once", "when_it_sleeps"])
async def test_killed_release_hook_leaves_no_model_awake(world: World, killed: Change) -> None:
    """The OOM killer took it: both models were awake at once, and the status said that one slept."""
    world.add("s", can_sleep=True, sleep_seconds=0.2)
    world.add("a")
    hooks = hooks_folder(world.folder, killed)
    spare(hooks)
    async with world.controller(hooks_folder=hooks) as mmd:
        await mmd.activate("s")
        endanger(hooks)
        await mmd.activate("a")
        status = await mmd.status()
        assert (status.resident_ids, status.sleeping) == (("a",), ())
        assert (await mmd.residencies()).get("s", Residency.ABSENT) in (Residency.ABSENT, Residency.FAILED)
        spare(hooks)
        await mmd.activate("s")
        assert (await mmd.status()).resident_ids == ("s",)
    assert not world.events("overlap")


async def test_awake_engine_without_a_token_is_shown_and_ended(world: World) -> None:
    """Its release hook was killed while it was put to sleep by a user: nothing was to follow, and it stayed awake."""
    world.add("s", can_sleep=True)
    world.add("a")
    hooks = hooks_folder(world.folder, RELEASE_IS_KILLED)
    async with world.controller(hooks_folder=hooks) as mmd:
        await mmd.activate("s")
        await mmd.sleep("s")
        status = await mmd.status()
        assert (await mmd.residencies())["s"] is Residency.STRANDED
        assert (status.resident_ids, status.sleeping) == ((), ())
        await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("a",)
        assert world.main_pid("s") == 0
    assert not world.events("overlap")


def _active_state(world: World, name: str) -> str:
    return world.manager.systemctl("show", "--property=ActiveState", "--value", f"mmd-model@{name}.service").strip()


@pytest.mark.parametrize("by_hand", [True, False], ids=["sleep", "swap"])
async def test_who_cannot_let_go_of_the_gpu_any_more_is_ended_first(world: World, by_hand: bool) -> None:
    """mmd was moved under a resident model: its token's hook could not run, failed, and the next model loaded beside
    it.
    """
    world.add_gpus(24)
    world.add("a", can_sleep=True)
    world.add("b")
    moved = world.folder / "old-mmd"
    shutil.copytree(Path(mmd.hooks.__file__).parent, moved)
    async with world.controller(hooks_folder=moved) as old:
        await old.activate("a")
    shutil.rmtree(moved)
    async with world.controller() as new:
        if by_hand:
            assert await new.sleep() == ("a",)
            assert (await new.status()).sleeping == ()
        await new.activate("b")
        assert (await new.status()).resident_ids == ("b",)
        assert (await new.status()).sleeping == ()
        await new.activate("a")  # with new units
        assert (await new.status()).resident_ids == ("a",)
    assert not world.events("overlap")

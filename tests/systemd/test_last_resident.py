"""What was resident before a shutdown or a power cut is loaded again by the boot after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmd.control.install.presence import running_version
from mmd.control.lifecycle.boot import BootReport, boot
from mmd.control.models.startup import set_restore_last
from mmd.control.state.last_resident import last_resident
from mmd.paths import config_dir
from tests.systemd.conftest import free_port
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for
from tests.user_manager import UserManager, user_manager


@contextmanager
def session(folder: Path) -> Iterator[World]:
    """A start of the machine, with the models and the state of the one before."""
    with user_manager() as manager, pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
            patch.setenv(name, manager.environment[name])
        world = World(manager, folder)
        set_restore_last()
        yield world


@pytest.fixture
def folder(own_home: Path, fake_llama_server: Path, tmp_path: Path) -> Path:
    return tmp_path


def start_gateway(world: World) -> None:
    world.settings('[gateway]\nembedding_listen = ""\n[boot]\nrestore_last = true\n')
    config = f"--setenv=XDG_CONFIG_HOME={config_dir().parent}"
    unit = ["systemd-run", "--user", "--quiet", "--unit=mmd-test-gateway", "--setenv=PATH", "--setenv=HOME"]
    command = [sys.executable, "-m", "mmd", "gateway", "--listen", f"127.0.0.1:{free_port()}"]
    subprocess.run([*unit, config, f"--setenv=PYTHONPATH={REPOSITORY}", *command], check=True, timeout=30)
    wait_for(lambda: running_version() is not None, what="the gateway")


def wait_for_record(model_id: str) -> None:
    wait_for(lambda: last_resident() == (model_id,), what=f"{model_id} alone in the record")


def shut_down(manager: UserManager) -> None:
    """Stop every unit in the order of systemd, as a shutdown does."""
    manager.systemctl("exit")
    wait_for(lambda: not is_running(manager.pid), what="the end of the manager")


def cut_power(manager: UserManager) -> None:
    """End the manager before it can stop a unit; the end of the session kills what it ran."""
    os.kill(manager.pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def booted(world: World) -> BootReport:
    async with world.controller() as controller:
        return await boot(controller)


async def test_shutdown_under_a_gateway_is_restored(folder: Path) -> None:
    with session(folder) as world:
        world.add("a", "b")
        start_gateway(world)
        for name in "ab":
            async with world.controller() as mmd:
                await mmd.activate(name)
            wait_for_record(name)
        shut_down(world.manager)
        assert last_resident() == ("b",)
    with session(folder) as world:
        start_gateway(world)  # before the boot, as a connection does
        assert (await booted(world)).active == ("b",)
        assert world.events("ready")[-1] == ("ready", "b")


async def test_power_cut_after_commands_without_a_gateway(folder: Path) -> None:
    with session(folder) as world:
        world.add("a", "b")
        assert run_mmd("activate", "a").returncode == 0
        assert run_mmd("activate", "b").returncode == 0
        cut_power(world.manager)
    with session(folder) as world:
        assert last_resident() == ("b",)
        assert run_mmd("boot").stderr == "b is active\n"
        assert run_mmd("stop", "b").returncode == 0
        assert last_resident() == ()
        shut_down(world.manager)
    with session(folder) as world:
        assert await booted(world) == BootReport()


async def test_gateway_that_is_killed_leaves_the_record(folder: Path) -> None:
    with session(folder) as world:
        world.add("a")
        start_gateway(world)
        async with world.controller() as mmd:
            await mmd.activate("a")
        wait_for_record("a")
        world.manager.systemctl("kill", f"--signal={signal.SIGKILL.value}", "mmd-test-gateway.service")
        cut_power(world.manager)
    with session(folder) as world:
        assert (await booted(world)).active == ("a",)


async def test_model_that_fails_now_does_not_stop_the_others(folder: Path) -> None:
    with session(folder) as world:
        world.add("a")
        assert run_mmd("activate", "a").returncode == 0
        shut_down(world.manager)
        world.behave("a", exit_at_once={"status": 1, "stderr": "error: no"})
    with session(folder) as world:
        report = await booted(world)
        assert (report.active, list(report.failed)) == ((), ["a"])
        assert await booted(world) == BootReport(), "a second boot does not try it again"

"""The boot on a real user manager: one model after another, past broken ones, and without delaying requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmd.control.install.presence import running_version
from mmd.control.lifecycle.activation import Activation
from mmd.control.lifecycle.boot import BootReport, boot
from mmd.control.lifecycle.controller import Controller
from mmd.control.models.startup import set_startup
from mmd.errors import WrongUsage
from mmd.gateway.schedule.systemd_models import SystemdModels
from mmd.paths import user_unit_dir
from mmd.plan.boot import Startup
from mmd.units.watch import Watch
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for

# A boot in a process of its own, which can be killed. The arguments are the models that can sleep.
_BOOT_PROCESS = """
import asyncio, sys
from mmd.control.lifecycle.boot import boot
from tests.systemd.world import SLEEP, Sleepy

async def main():
    async with Sleepy({name: {"sleep": SLEEP} for name in sys.argv[1:]}) as controller:
        await boot(controller)

asyncio.run(main())
"""


@pytest.fixture
def home(world: World) -> World:
    """Two models set to sleep, a and b, and the default, c."""
    world.add("a", "b", "c", "other", can_sleep=True)
    _startup(sleep="ab", active="c")
    return world


async def test_sleepers_come_one_after_another_and_the_default_last(home: World) -> None:
    report = await _boot(home)
    assert report == BootReport(asleep=("a", "b"), active=("c",))
    assert home.events("load-begin", "ready", "sleep", "overlap") == [
        *(("load-begin", "a"), ("ready", "a"), ("sleep", "a")),
        *(("load-begin", "b"), ("ready", "b"), ("sleep", "b")),
        *(("load-begin", "c"), ("ready", "c")),
    ]
    async with home.controller() as mmd:
        status = await mmd.status()
    assert (status.active, [one.id for one in status.sleeping]) == ("c", ["a", "b"])


async def test_without_any_model_nothing_is_done(world: World) -> None:
    world.add("a")
    assert await _boot(world) == BootReport()
    assert not world.events()


async def test_second_boot_has_nothing_to_do(home: World) -> None:
    first = await _boot(home)
    before = home.events()
    assert await _boot(home) == first
    assert home.events() == before


async def test_default_alone_is_woken_where_it_sleeps(home: World) -> None:
    await _boot(home)
    async with home.controller() as mmd:
        await mmd.sleep()
    assert (await _boot(home)).active == ("c",)
    assert home.events("load-begin", "wake")[-1] == ("wake", "c")


# --- broken models


async def test_broken_model_does_not_stop_the_rest(home: World) -> None:
    home.behave("a", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    report = await _boot(home)
    assert (report.asleep, report.active, report.yielded) == (("b",), ("c",), None)
    assert list(report.failed) == ["a"]
    assert "gronk" in report.failed["a"].message
    assert not home.events("overlap")


async def test_broken_default_leaves_the_sleepers_asleep(home: World) -> None:
    home.behave("c", exit_while_loading_seconds=0.1)
    report = await _boot(home)
    assert (report.asleep, report.active, list(report.failed)) == (("a", "b"), (), ["c"])


async def test_model_whose_file_is_gone_does_not_stop_the_rest(home: World) -> None:
    (home.folder / "b.gguf").unlink()
    report = await _boot(home)
    assert (report.asleep, report.active, list(report.failed)) == (("a",), ("c",), ["b"])


async def test_model_that_will_not_sleep_is_told_and_the_rest_goes_on(home: World) -> None:
    home.behave("a", hang_in_sleep=True)
    report = await _boot(home)
    assert (report.asleep, report.active, report.failed) == (("b",), ("c",), {})
    assert "did not fall asleep" in report.skipped["a"]


async def test_model_that_cannot_sleep_is_not_even_loaded(world: World) -> None:
    world.add("a")
    _startup(sleep="a")
    report = await _boot(world)
    assert "cannot sleep" in report.skipped["a"]
    assert not world.events()


async def test_model_that_is_no_longer_registered_is_told(home: World) -> None:
    async with home.controller() as mmd:
        for name in "ac":
            await mmd.remove(name)
    report = await _boot(home)
    assert (report.asleep, report.active) == (("b",), ())
    assert list(report.skipped) == ["a", "c"]


async def test_two_defaults_are_refused_before_anything_is_loaded(home: World) -> None:
    home.settings('[models.a]\nstartup = "active"\n[models.b]\nstartup = "active"\n')
    with pytest.raises(WrongUsage, match="a and b") as refusal:
        await _boot(home)
    assert "mmd default a" in refusal.value.hint
    assert not home.events()


# --- requests and the boot


async def test_loaded_model_keeps_the_gpu(home: World) -> None:
    async with home.controller() as mmd:
        await mmd.activate("other")
        report = await _boot(home)
        assert (await mmd.status()).active == "other"
    assert (report.asleep, report.active, report.failed) == ((), (), {})
    assert [name for name, why in report.skipped.items() if why.endswith("beside other")] == ["a", "b", "c"]


async def test_default_that_was_asked_for_already_is_not_disturbed(home: World) -> None:
    async with home.controller() as mmd:
        await mmd.activate("c")
    report = await _boot(home)
    assert (report.active, list(report.skipped)) == (("c",), ["a", "b"])
    assert home.events("load-begin") == [("load-begin", "c")]


async def test_model_that_is_to_sleep_and_was_asked_for_stays_awake(home: World) -> None:
    """The boot put a model to sleep that was in use: it took that model for one left by a killed boot."""
    async with home.controller() as mmd:
        await mmd.activate("a")
        report = await _boot(home)
        assert (await mmd.status()).active == "a"
    assert (report.asleep, list(report.skipped)) == ((), ["b", "c"])


async def test_request_in_between_ends_the_boot(home: World) -> None:
    home.behave("b", load_seconds=30)
    booting = asyncio.create_task(_boot(home))
    await _until_loading(home, "b")
    async with home.controller() as mmd:
        await mmd.activate("other")
        report = await booting
        assert (await mmd.status()).active == "other"
    assert (report.asleep, report.active, report.failed) == (("a",), (), {})
    assert report.yielded is not None
    assert "other was activated" in report.yielded
    assert not home.events("overlap")


async def test_request_waits_for_the_boot_load_and_ends_the_boot(home: World) -> None:
    """The boot cuts no load of others short, and a request does not wait for the end of the boot."""
    home.behave("a", load_seconds=0.5)
    booting = asyncio.create_task(_boot(home))
    await _until_loading(home, "a")
    async with home.controller() as mmd:
        watch = Watch(mmd.manager)
        following = asyncio.create_task(watch.run())
        await SystemdModels(mmd, watch).activate("other", drain_seconds=0.0)
        report = await booting
        assert (await mmd.status()).active == "other"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert list(report.skipped) == ["b", "c"]
    assert home.events("ready")[0] == ("ready", "a")
    assert ("load-begin", "c") not in home.events()
    assert not home.events("overlap")


async def test_stop_in_between_ends_the_boot(home: World) -> None:
    home.behave("a", load_seconds=30)
    booting = asyncio.create_task(_boot(home))
    await _until_loading(home, "a")
    async with home.controller() as mmd:
        await mmd.stop()
    report = await booting
    assert (report.asleep, report.failed) == ((), {})
    assert report.yielded is not None
    assert home.events("load-begin") == [("load-begin", "a")]


async def test_request_between_boot_check_and_activation_keeps_the_gpu(home: World) -> None:
    """The boot saw no loaded model, and a moment later evicted one that had been loaded meanwhile."""
    async with home.controller() as mmd, _Forestalled(mmd, "other") as forestalled:
        report = await boot(forestalled)
        assert (await mmd.status()).active == "other"
    assert home.events("load-begin") == [("load-begin", "other")]
    assert "other" in report.skipped["a"]


# --- several boots


async def test_two_boots_at_once_are_one(home: World) -> None:
    first, second = await asyncio.gather(_boot(home), _boot(home))
    assert first == second == BootReport(asleep=("a", "b"), active=("c",))
    assert home.events("start") == [("start", "a"), ("start", "b"), ("start", "c")]


async def test_second_boot_does_not_undo_what_ended_the_first(home: World) -> None:
    """b is set to sleep and has the GPU, as after a killed boot; but a client asked for it."""
    home.behave("a", load_seconds=30)
    boots = [asyncio.create_task(_boot(home)) for _ in range(2)]
    await _until_loading(home, "a")
    async with home.controller() as mmd:
        await mmd.activate("b")
        # Either of them may have taken the lock first.
        ended, skipping = sorted(await asyncio.gather(*boots), key=lambda report: report.yielded is None)
        assert (await mmd.status()).active == "b"
    assert ended.yielded is not None and "b" in ended.yielded
    assert list(skipping.skipped) == ["a", "c"]


async def test_second_boot_continues_after_the_first_was_killed(home: World, caplog: pytest.LogCaptureFixture) -> None:
    home.behave("a", load_seconds=1)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _BOOT_PROCESS, "a", "b", "c", cwd=REPOSITORY)
    await _until_loading(home, "a")
    second = asyncio.create_task(_boot(home))
    await asyncio.to_thread(wait_for, lambda: "another boot" in caplog.text, what="that the second waits")
    killed.kill()
    await killed.wait()
    assert await second == BootReport(asleep=("a", "b"), active=("c",))
    assert not home.events("overlap")


async def test_boot_after_one_that_was_killed_yields_to_who_came_since(home: World) -> None:
    home.behave("a", load_seconds=0.5)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _BOOT_PROCESS, "a", "b", "c", cwd=REPOSITORY)
    await _until_loading(home, "a")
    killed.kill()
    await killed.wait()
    async with home.controller() as mmd:
        await mmd.activate("b")
        report = await _boot(home)
        assert (await mmd.status()).active == "b"
    assert (list(report.skipped), report.yielded) == (["a", "c"], None)


@pytest.mark.parametrize("at", ["load-begin", "ready"])
async def test_boot_after_one_that_was_killed_goes_on_where_that_was(home: World, at: str) -> None:
    """It took the model that the killed boot had left on the GPU for one in use, and gave up."""
    home.behave("b", load_seconds=0.5)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _BOOT_PROCESS, "a", "b", "c", cwd=REPOSITORY)
    await asyncio.to_thread(wait_for, lambda: (at, "b") in home.events(), what=f"b's {at}")
    killed.kill()
    await killed.wait()
    assert await _boot(home) == BootReport(asleep=("a", "b"), active=("c",))
    assert home.events("load-begin") == [("load-begin", "a"), ("load-begin", "b"), ("load-begin", "c")]
    assert not home.events("overlap")


# --- as a unit


async def test_unit_activates_the_default_and_delays_nothing(world: World, installed: str) -> None:
    world.add("a", load_seconds=4)
    assert run_mmd("default", "a").returncode == 0
    world.manager.systemctl("start", "mmd-boot.service")
    assert ("ready", "a") not in world.events(), "default.target would be waiting for it"
    await _until_loading(world, "a")
    assert _no_new_privileges(_show(world, "MainPID")) == _no_new_privileges("self"), "nvidia-modprobe is setuid"
    await asyncio.to_thread(wait_for, lambda: _show(world, "ActiveState") == "inactive", what="the end of the boot")
    async with Controller() as mmd:
        assert (await mmd.status()).active == "a"


async def test_unit_starts_the_gateway_beside_what_it_loads(world: World, installed: str) -> None:
    world.add("a")
    world.manager.systemctl("start", "mmd-boot.service")
    await asyncio.to_thread(wait_for, lambda: _show(world, "ActiveState") == "inactive", what="the end of the boot")
    assert running_version() is None, "nothing is loaded at startup, and nothing is to be watched"
    assert run_mmd("default", "a").returncode == 0
    world.manager.systemctl("start", "mmd-boot.service")
    await asyncio.to_thread(wait_for, lambda: running_version() is not None, what="the gateway")


async def test_unit_that_met_a_broken_model_has_failed(world: World, installed: str) -> None:
    world.add("a", "b")
    world.behave("a", exit_at_once={"status": 1, "stderr": "error: no"})
    assert run_mmd("default", "a").returncode == 0
    world.manager.systemctl("start", "mmd-boot.service")
    await asyncio.to_thread(wait_for, lambda: _show(world, "ActiveState") == "failed", what="the end of the boot")
    assert _show(world, "ExecMainStatus") == "1"
    said = await asyncio.to_thread(run_mmd, "boot")
    assert said.returncode == 1
    what_is, what_to_do = said.stderr.splitlines()
    assert what_is.startswith("a did not start: ")
    assert "error: no" in what_is
    assert what_to_do.startswith("  → mmd logs a")


async def test_unit_finds_the_engines_of_the_shell_that_installed_it(world: World, installed: str) -> None:
    """After a start of the machine the manager's own PATH is not that of a shell."""
    world.manager.systemctl("set-environment", "PATH=/usr/bin:/bin")
    world.add("a")
    assert run_mmd("default", "a").returncode == 0
    world.manager.systemctl("start", "mmd-boot.service")
    await asyncio.to_thread(wait_for, lambda: _show(world, "ActiveState") == "inactive", what="the end of the boot")
    command = world.manager.systemctl("show", "--property=ExecStart", "mmd-model@a.service")
    assert f"path={world.folder}/bin/llama-server ;" in command


def test_unit_is_wanted_at_startup_until_it_is_removed(world: World, installed: str) -> None:
    assert world.manager.systemctl("is-enabled", "mmd-boot.service").strip() == "enabled"
    assert "mmd-boot.service" in world.manager.systemctl("show", "--property=Wants", "default.target")
    assert run_mmd("install", "--remove").returncode == 0
    assert "mmd-boot.service" not in world.manager.systemctl("show", "--property=Wants", "default.target")


async def test_remove_ends_a_boot_under_way(world: World, installed: str) -> None:
    world.add("a", load_seconds=30)
    assert run_mmd("default", "a").returncode == 0
    world.manager.systemctl("start", "mmd-boot.service")
    await _until_loading(world, "a")
    assert run_mmd("install", "--remove").returncode == 0
    assert _show(world, "ActiveState") == "inactive"


def test_remove_after_a_unit_was_deleted_manually(world: World, installed: str) -> None:
    (user_unit_dir() / "mmd-boot.service").unlink()
    removed = run_mmd("install", "--remove")
    assert (removed.returncode, removed.stderr) == (0, "mmd's units removed; models and settings are kept.\n")
    assert not list(user_unit_dir().rglob("mmd*"))


class _Forestalled(Controller):
    """A controller before whose first activation another one activates a model."""

    def __init__(self, theirs: Controller, wanted: str) -> None:
        super().__init__()
        self.planner = theirs.planner
        self._theirs = theirs
        self._wanted = wanted

    async def activate(self, models: str | Sequence[str], **how: Any) -> Activation:
        await self._theirs.activate(self._wanted)
        return await super().activate(models, **how)


async def _boot(world: World) -> BootReport:
    async with world.controller() as controller:
        return await boot(controller)


async def _until_loading(world: World, name: str) -> None:
    await asyncio.to_thread(wait_for, lambda: ("load-begin", name) in world.events(), what=f"{name}'s load")


def _startup(*, sleep: Iterable[str] = (), active: str | None = None) -> None:
    for name in sleep:
        set_startup(name, Startup.SLEEP)
    if active is not None:
        set_startup(active, Startup.ACTIVE)


def _show(world: World, name: str) -> str:
    return world.manager.systemctl("show", f"--property={name}", "--value", "mmd-boot.service").strip()


def _no_new_privileges(pid: str) -> str:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NoNewPrivs"))
    return line

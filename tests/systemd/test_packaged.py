"""Units of a package, with and without copies of an older installation: what starts them, and what is written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mmd.control.install.inspection import InstallKind, InstallState, read_install_state
from mmd.control.install.presence import running_version
from mmd.paths import user_unit_dir
from mmd.settings import read_settings
from mmd.units.unit_files import ENABLED, PACKAGED_COMMAND, UNITS, is_template, unit_text
from tests.systemd.conftest import free_port
from tests.systemd.world import World, run_mmd, wait_for

DROP_INS = {"mmd.service", "mmd-boot.service", "mmd-tunnel@.service", "mmd.socket", "mmd-embedding.socket"}


@pytest.fixture
def packaged(package: Path, address: str) -> Iterator[str]:
    """A package's units, and `mmd install`; the gateway's address."""
    done = run_mmd("install")
    assert done.returncode == 0, done.stderr
    yield address
    run_mmd("install", "--remove")


async def _answers(address: str) -> bool:
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        return (await client.get("/health")).status_code == 200


def _files() -> set[str]:
    return {str(path.relative_to(user_unit_dir())) for path in user_unit_dir().rglob("*") if not path.is_dir()}


def _links() -> set[str]:
    return {name for name in _files() if ".wants/" in name}


def _fragment(world: World, unit: str) -> str:
    return world.manager.systemctl("show", "--property=FragmentPath", "--value", unit).strip()


async def test_only_drop_ins_are_written_beside_a_package(world: World, packaged: str, package: Path) -> None:
    assert _files() - _links() == {f"{name}.d/50-mmd.conf" for name in DROP_INS}
    assert {Path(link).name for link in _links()} == set(ENABLED)
    assert await _answers(packaged)
    for name in (name for name in UNITS if not is_template(name)):
        assert _fragment(world, name) == str(package / name)
    environment = world.manager.systemctl("show", "--property=Environment", "mmd.service", "mmd-boot.service")
    assert environment.count(f"PATH={world.folder}/bin:") == 2
    assert (await read_install_state()).is_current


async def test_socket_leaves_the_address_of_the_package(world: World, packaged: str) -> None:
    listens = world.manager.systemctl("show", "--property=Listen", "--value", "mmd.socket").split()
    assert listens == [packaged.removeprefix("http://"), "(Stream)"]


async def test_unwanted_embedding_socket_stays_stopped(world: World, packaged: str) -> None:
    """mmd.service pulls in all its sockets, and a package brings this one for every user."""
    old = read_settings().gateway.embedding_listen
    listen = packaged.removeprefix("http://")
    world.settings(f'[gateway]\nlisten = "{listen}"\nembedding_listen = ""\n')
    assert run_mmd("install").returncode == 0
    assert await _answers(packaged)
    assert world.manager.systemctl("is-active", "mmd-embedding.socket").strip() == "inactive"
    now = await read_install_state()
    assert (now.is_current, now.masked, now.shadowing) == (True, (), ())

    world.settings(f'[gateway]\nlisten = "{listen}"\nembedding_listen = "{old}"\n')
    assert not (await read_install_state()).is_current
    assert run_mmd("install").returncode == 0
    assert await _answers(f"http://{old}")


async def test_copies_of_an_older_installation_make_way(world: World, installed: str, package: Path) -> None:
    assert await _answers(installed)
    before = await read_install_state()
    assert (before.kind, {file.name for file in before.shadowing}) == (InstallKind.COPIED, set(UNITS))
    assert not before.is_current
    done = run_mmd("install")
    assert done.returncode == 0, done.stderr
    assert _files() - _links() == {f"{name}.d/50-mmd.conf" for name in DROP_INS}
    assert all((user_unit_dir() / link).readlink() == package / Path(link).name for link in _links())
    assert (await read_install_state()).is_current
    assert await _answers(installed)
    assert _fragment(world, "mmd.service") == str(package / "mmd.service")


async def test_unit_that_the_user_has_edited_is_not_lost(world: World, packaged: str, package: Path) -> None:
    """The result of `systemctl --user edit --full mmd.service`."""
    own = user_unit_dir() / "mmd.service"
    own.write_text(unit_text("mmd.service", PACKAGED_COMMAND) + "# mine\n", "utf-8")
    done = run_mmd("install")
    assert f"{own} was not written by mmd; it is mmd.service.bak now" in done.stderr
    assert own.with_name("mmd.service.bak").read_text("utf-8").endswith("# mine\n")
    assert _fragment(world, "mmd.service") == str(package / "mmd.service")

    own.with_name("mmd.service.bak").rename(own)
    world.manager.systemctl("daemon-reload")
    assert "units removed" in run_mmd("install", "--remove").stderr
    assert "units are not installed" in run_mmd("install", "--remove").stderr
    assert _files() == {"mmd.service"}
    own.unlink()


async def test_package_that_goes_leaves_links_that_are_told_and_mended(
    world: World, packaged: str, package: Path
) -> None:
    shutil.rmtree(package)
    world.manager.systemctl("daemon-reload")
    now = await read_install_state()
    assert now.kind is InstallKind.NONE
    assert {link.name for link in now.dangling} == set(ENABLED)
    assert not now.is_current
    assert run_mmd("install").returncode == 0
    assert (await read_install_state()).kind is InstallKind.COPIED
    assert (await read_install_state()).is_current
    assert await _answers(packaged)


async def test_what_a_package_that_went_has_left_can_be_removed(world: World, packaged: str, package: Path) -> None:
    shutil.rmtree(package)
    removed = run_mmd("install", "--remove")
    assert (removed.returncode, removed.stderr) == (0, "mmd's units removed; models and settings are kept.\n")
    assert not _files()
    assert run_mmd("install", "--remove").stderr == "mmd's units are not installed.\n"


async def test_remove_leaves_the_package_disabled_and_models_running(
    world: World, packaged: str, package: Path
) -> None:
    world.add("a")
    async with world.controller() as controller:
        await controller.activate("a")
    assert run_mmd("install", "--remove").returncode == 0
    assert not _files()
    for name in ENABLED:
        assert world.manager.systemctl("is-enabled", name).strip() == "disabled"
        assert world.manager.systemctl("is-active", name).strip() == "inactive"
    assert json.loads(run_mmd("status", "--json").stdout)["active"] == "a"
    now = await read_install_state()
    assert (now.kind, now.disabled) == (InstallKind.PACKAGED, ENABLED)


async def test_refused_address_leaves_the_package_as_it_was(world: World, packaged: str) -> None:
    before = {name: (user_unit_dir() / name).read_bytes() for name in _files()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.settings(f'[gateway]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\nembedding_listen = ""\n')
        failed = run_mmd("install")
    assert failed.returncode == 1
    assert {name: (user_unit_dir() / name).read_bytes() for name in _files()} == before
    assert await _answers(packaged)


async def test_folder_that_cannot_be_written_leaves_all_as_it_was(world: World, installed: str, package: Path) -> None:
    """The copies were deleted, and nothing was in their place."""
    before = _files()
    shutil.rmtree(user_unit_dir() / "mmd-boot.service.d")
    (user_unit_dir() / "mmd-boot.service.d").write_text("in the way")
    failed = run_mmd("install")
    (user_unit_dir() / "mmd-boot.service.d").unlink()
    assert failed.returncode == 1
    assert "cannot be written" in failed.stderr
    assert _files() == before - {"mmd-boot.service.d/50-mmd.conf"}
    assert await _answers(installed)


def test_install_says_whose_mmd_the_units_start(world: World, address: str, package: Path) -> None:
    other = world.folder / "other/mmd"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m mmd "$@"\n')
    other.chmod(0o755)
    for name in UNITS:
        (package / name).write_text(unit_text(name, str(other)), "utf-8")
    said = run_mmd("install").stderr
    assert f"start {other}" in said


async def test_units_that_are_masked_are_left_alone_and_told(world: World, packaged: str) -> None:
    assert await _answers(packaged)
    before = _files()
    world.manager.systemctl("mask", "mmd-boot.service", "mmd-embedding.socket")
    world.manager.systemctl("stop", "mmd-local.socket")
    for says in ("The gateway is listening", "Nothing to do", "Nothing to do"):
        done = run_mmd("install")
        assert (done.returncode, says in done.stderr) == (0, True), done.stderr
        for masked in ("mmd-boot.service", "mmd-embedding.socket"):
            assert f"{masked} is masked and was skipped" in done.stderr
            assert (user_unit_dir() / masked).readlink() == Path("/dev/null")
        assert "Embeddings endpoint" not in done.stderr
    assert _files() == before | {"mmd-boot.service", "mmd-embedding.socket"}

    world.manager.systemctl("unmask", "mmd-boot.service", "mmd-embedding.socket")
    assert _files() == before
    assert world.manager.systemctl("is-enabled", "mmd-boot.service").strip() == "enabled"


def test_masked_gateway_is_not_started_behind_anybodys_back(world: World, packaged: str) -> None:
    before = _files()
    world.manager.systemctl("mask", "--runtime", "mmd.socket")
    world.manager.systemctl("mask", "mmd.service")
    refused = run_mmd("install")
    world.manager.systemctl("unmask", "mmd.service")
    world.manager.systemctl("unmask", "--runtime", "mmd.socket")
    assert refused.returncode == 1
    assert "systemctl --user unmask mmd.service mmd.socket && mmd install" in refused.stderr
    assert _files() == before


async def test_model_is_resident_without_a_gateway_that_may_not_run(world: World, packaged: str) -> None:
    world.add("a")
    world.manager.systemctl("mask", "mmd.service")
    done = await asyncio.to_thread(run_mmd, "activate", "a")
    world.manager.systemctl("unmask", "mmd.service")
    assert (done.returncode, done.stderr.splitlines()[-1][:12]) == (0, "a loaded in "), done.stderr
    assert running_version() is None


# --- messages


def test_default_says_that_it_takes_units(world: World, address: str, package: Path) -> None:
    """A package that is not enabled starts nothing."""
    world.add("a")
    assert "This needs mmd's units: mmd install" in run_mmd("default", "a").stderr
    assert run_mmd("install").returncode == 0
    assert "mmd install" not in run_mmd("default", "a").stderr
    world.manager.systemctl("mask", "mmd-boot.service")
    assert "This needs mmd's units: mmd install" in run_mmd("default", "a").stderr
    world.manager.systemctl("unmask", "mmd-boot.service")
    world.manager.systemctl("disable", "mmd-boot.service")
    assert "This needs mmd's units: mmd install" in run_mmd("default", "a").stderr


def test_install_says_that_the_gateway_needs_a_key(world: World, packaged: str) -> None:
    assert "key" not in run_mmd("install").stderr
    run_mmd("key", "add", "laptop")
    said = run_mmd("install").stderr
    assert f"curl {packaged}/v1/models -H 'Authorization: Bearer KEY'" in said
    assert "mmd key add NAME" in said


# --- whether there is something to do


async def test_second_install_changes_nothing_and_reloads_settings(world: World, packaged: str) -> None:
    assert "Nothing to do: the units are up to date.\n" in run_mmd("install").stderr
    assert await _answers(packaged)
    first = _main_pid(world)
    modified = {name: (user_unit_dir() / name).lstat().st_mtime_ns for name in _files()}
    done = run_mmd("install")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing to do: the units are up to date. The gateway was restarted." in done.stderr
    assert _main_pid(world) not in ("0", first)
    assert {name: (user_unit_dir() / name).lstat().st_mtime_ns for name in _files()} == modified
    assert await _answers(packaged)


def _main_pid(world: World) -> str:
    return world.manager.systemctl("show", "--property=MainPID", "--value", "mmd.service").strip()


async def test_gateway_that_ran_runs_after_an_installation(world: World, packaged: str) -> None:
    """A model that was loaded already was not watched until the next request."""
    assert await _answers(packaged)
    first = _main_pid(world)
    world.manager.systemctl("stop", "mmd-local.socket")
    assert "Nothing to do" not in run_mmd("install").stderr
    await asyncio.to_thread(wait_for, lambda: _main_pid(world) not in ("0", first), what="another gateway")


def _with(world: World, *words: str) -> None:
    world.manager.systemctl(*words)


async def test_installation_tells_what_install_would_mend(world: World, packaged: str) -> None:
    async def told() -> InstallState:
        now = await read_install_state()
        assert not now.is_current
        assert "Nothing to do" not in run_mmd("install").stderr
        assert (await read_install_state()).is_current
        return now

    _with(world, "disable", "mmd-boot.service")
    assert (await told()).disabled == ("mmd-boot.service",)
    _with(world, "stop", "mmd-local.socket")
    assert (await told()).silent == ("mmd-local.socket",)
    drop_in = user_unit_dir() / "mmd.service.d/50-mmd.conf"
    drop_in.write_text("[Service]\n")
    _with(world, "daemon-reload")
    assert (await told()).outdated == (drop_in,)
    world.settings(f'[gateway]\nlisten = "127.0.0.1:{free_port()}"\nembedding_listen = ""\n')
    assert {file.parent.name for file in (await told()).outdated} >= {"mmd.socket.d", "mmd-embedding.socket.d"}


async def test_install_reports_units_the_manager_has_not_read(world: World, packaged: str, package: Path) -> None:
    """After an upgrade of the package."""
    assert await _answers(packaged)
    with (package / "mmd.service").open("a") as unit:
        unit.write("# newer\n")
    now = await read_install_state()
    assert (now.unread, now.outdated) == (("mmd.service",), ())
    assert run_mmd("install").returncode == 0
    assert (await read_install_state()).is_current


async def test_shell_with_another_path_makes_nothing_outdated(
    world: World, packaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example in a virtual environment: the caller finds out whether that changes an engine."""
    monkeypatch.setenv("PATH", f"/opt/50% of tools/bin:{os.environ['PATH']}")
    now = await read_install_state()
    assert (now.outdated, {file.parent.name for file in now.other_path}) == (
        (),
        {"mmd.service.d", "mmd-boot.service.d", "mmd-tunnel@.service.d"},
    )
    assert not now.is_current
    assert run_mmd("install").returncode == 0
    assert (await read_install_state()).is_current


async def test_nothing_is_installed(address: str) -> None:
    now = await read_install_state()
    assert (now.kind, now.outdated, now.disabled, now.silent) == (InstallKind.NONE, (), (), ())
    assert not now.is_current

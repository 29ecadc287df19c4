"""A lease as units: the text, and how a real user manager carries them out."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.plan.lease import LeaseState, lease_id
from mmd.units.bus import JobResult, Manager
from mmd.units.directives import Switch, Text, Words
from mmd.units.lease_spec import LeaseUnits, lease_specs, read_restores, restores_text
from mmd.units.names import back_unit, holder_unit, split, split_lease, token_unit
from mmd.units.spec import UnitSpec
from mmd.units.unit_files import mmd_command, unit_text
from mmd.units.watch import leases_of, pairs_of
from tests.unit.units.test_spec import verify
from tests.user_manager import UserManager

HOLD = Path(__file__).parents[3] / "mmd/hooks/hold.py"
LEASE = LeaseUnits(
    name="blender",
    share={"GPU-8a3b1c2d": 10240},
    description="blender -b scene.blend",
    gate=("/bin/true", "gate"),
    gone=("/bin/true", "gone"),
    hold=("/bin/true", "hold"),
    back=("/bin/true", "back"),
    restores=("qwen3", "bge-m3"),
    path="/usr/bin",
    has_pipe=True,
)
TOKEN, HOLDER = token_unit(lease_id("blender")), holder_unit("blender")


def test_units_of_a_lease_belong_to_no_model() -> None:
    assert [split(spec.name) for spec in lease_specs(LEASE)] == [None, None, None]
    assert split_lease(TOKEN) == ("token", "blender")
    assert split_lease(HOLDER) == ("holder", "blender")
    assert split_lease("mmd-resident@qwen3.service") is None


def test_restores_are_read_back() -> None:
    assert read_restores(restores_text(("a", "b-1.5"), "blender")) == ("a", "b-1.5")
    assert len(lease_specs(replace(LEASE, restores=()))) == 2, "nothing to restore, no unit"


def test_description_of_the_holder_is_one_short_line() -> None:
    spec = lease_specs(replace(LEASE, description="sh -c 'a\nb'" + "x" * 999))[1]
    (text,) = (one.value for one in spec.directives if one.name == "Description")
    assert text.startswith("sh -c 'a b'")
    assert len(text) <= 120


@pytest.mark.tools
def test_systemd_analyze_accepts_the_units(tmp_path: Path) -> None:
    for spec in lease_specs(LEASE):
        (tmp_path / spec.name).write_text(spec.text(), "utf-8")
    (tmp_path / "mmd.slice").write_text(unit_text("mmd.slice", mmd_command()), "utf-8")
    verify(tmp_path, *(spec.name for spec in lease_specs(LEASE)))


# --- a real user manager


@pytest.fixture
async def manager(systemd: UserManager) -> AsyncIterator[Manager]:
    async with await Manager.connect() as connection:
        yield connection


def lease_in(folder: Path, *, gate: str = "true", words: tuple[str, ...] = ("pipe",)) -> LeaseUnits:
    """Return a lease whose programs write what they do into `folder`."""
    # A script, because systemd 252 does not read `$` again after a reload.
    (folder / "back.sh").write_text(f'echo back "$*" >> {folder}/log; false\n')
    return replace(
        LEASE,
        gate=("/bin/sh", "-c", f"echo enter >> {folder}/log; {gate}"),
        gone=("/bin/sh", "-c", f"echo gone >> {folder}/log"),
        hold=(sys.executable, "-I", "-S", str(HOLD), *words),
        back=("/bin/sh", str(folder / "back.sh")),
        has_pipe="pipe" in words,
    )


def swap_of(*specs: UnitSpec) -> UnitSpec:
    names = (specs[0].name,)
    return UnitSpec(
        f"mmd-swap-{os.getpid()}x{time.monotonic_ns()}.slice",
        (
            Words("Wants", names),
            Words("Before", names),
            Switch("StopWhenUnneeded", True),
            Text("CollectMode", "inactive-or-failed"),
        ),
    )


async def begin(manager: Manager, lease: LeaseUnits, *descriptors: int) -> JobResult:
    specs = lease_specs(lease)
    job = await manager.submit(HOLDER, manager.start_transient(swap_of(*specs), *specs, descriptors=descriptors))
    return await job.result()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Yield a pipe; the caller closes the write end."""
    read_end, write_end = os.pipe()
    try:
        yield read_end, write_end
    finally:
        os.close(read_end)


async def until_gone(manager: Manager, folder: Path, *, within_seconds: float = 5.0) -> float:
    """Return the seconds until no unit of the lease is loaded and the restore has run."""
    began = time.monotonic()
    while await manager.units() or log(folder)[-1] != ALL[-1]:
        assert time.monotonic() - began < within_seconds, log(folder)
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


ALL = ["enter", "gone", "back qwen3", "back bge-m3"]


@pytest.mark.manager
async def test_lease_ends_when_its_pipe_is_closed(manager: Manager, tmp_path: Path) -> None:
    with pipe() as (read_end, write_end):
        assert await begin(manager, lease_in(tmp_path), read_end) is JobResult.DONE
    units = await manager.units()
    assert pairs_of(units) == {}, "no model"
    (found,) = leases_of(units).values()
    assert (found.state, found.uses, found.description) == (LeaseState.HELD, LEASE.share, LEASE.description)
    await manager.reload()
    assert leases_of(await manager.units())["blender"].state is LeaseState.HELD
    os.close(write_end)
    assert await until_gone(manager, tmp_path) < 1
    assert log(tmp_path) == ALL


@pytest.mark.manager
async def test_lease_outlives_the_pipe_if_its_process_runs(manager: Manager, tmp_path: Path) -> None:
    """Programs such as sudo close descriptors that they did not open."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    with pipe() as (read_end, write_end):
        lease = lease_in(tmp_path, words=("pipe", f"pid={process.pid}"))
        assert await begin(manager, lease, read_end) is JobResult.DONE
    os.close(write_end)
    await asyncio.sleep(0.3)  # the lease must survive this
    assert leases_of(await manager.units())["blender"].state is LeaseState.HELD
    process.kill()  # a zombie until it is reaped below
    assert await until_gone(manager, tmp_path) < 1
    await process.wait()


@pytest.mark.manager
async def test_lease_ends_after_its_time(manager: Manager, tmp_path: Path) -> None:
    assert await begin(manager, lease_in(tmp_path, words=("seconds=0.3",))) is JobResult.DONE
    assert 0.1 < await until_gone(manager, tmp_path) < 1.5


@pytest.mark.manager
@pytest.mark.parametrize("unit", [HOLDER, TOKEN])
async def test_lease_is_ended_by_hand(manager: Manager, systemd: UserManager, tmp_path: Path, unit: str) -> None:
    assert await begin(manager, lease_in(tmp_path, words=())) is JobResult.DONE
    systemd.systemctl("stop", unit)
    await until_gone(manager, tmp_path)
    assert log(tmp_path) == ALL


@pytest.mark.manager
async def test_lease_that_is_not_let_in_has_no_holder(manager: Manager, tmp_path: Path) -> None:
    with pipe() as (read_end, write_end):
        assert await begin(manager, lease_in(tmp_path, gate="exit 75"), read_end) is JobResult.DEPENDENCY
    await until_gone(manager, tmp_path)
    assert log(tmp_path) == ALL, "those who left for it are restored"
    os.close(write_end)


@pytest.mark.manager
async def test_units_of_a_lease_cannot_be_started_by_hand(
    manager: Manager, systemd: UserManager, tmp_path: Path
) -> None:
    assert await begin(manager, lease_in(tmp_path, words=())) is JobResult.DONE
    assert (await manager.units([back_unit("blender")]))[0].active_state == "inactive"
    systemd.systemctl("restart", TOKEN)
    assert leases_of(await manager.units())["blender"].state is LeaseState.HELD
    assert log(tmp_path) == ["enter"]
    systemd.systemctl("stop", HOLDER)
    await until_gone(manager, tmp_path)

"""The record of what is resident: it outlives a shutdown, a kill, and boots that end before they restored it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mmd.control.state.last_resident import (
    clear_pending,
    last_resident,
    pending_models,
    record_resident,
    resident_models,
)
from mmd.control.state.suspended_models import note_suspended
from mmd.paths import state_dir
from mmd.plan.residency import Pair, UnitState
from mmd.units.bus import Manager, Unit
from mmd.units.names import PATTERNS

UP = UnitState("active", "running", loaded=True)
FAILED = UnitState("failed", "failed", loaded=True)
STARTING = UnitState("activating", "start-post", "start", loaded=True)
TOKEN = UnitState("active", "exited", loaded=True)
LEAVING = UnitState("active", "exited", "stop", loaded=True)
DOWN = UnitState()


class Units:
    """A user manager's answers: which models have a token, and whether it is stopping."""

    def __init__(self, *models: str, session: int = 1, state: str = "running", leased: tuple[str, ...] = ()) -> None:
        self._models = models
        self._leased = leased
        self._properties = {"UserspaceTimestamp": session, "SystemState": state}

    async def units(self, patterns: Sequence[str] = PATTERNS) -> tuple[Unit, ...]:
        if patterns != PATTERNS:
            return (Unit("mmd-back@game.service", "loaded", "inactive", "dead", ""),) if self._leased else ()
        tokens = (Unit(f"mmd-resident@{one}.service", "loaded", "active", "exited", "") for one in self._models)
        engines = (Unit(f"mmd-model@{one}.service", "loaded", "active", "running", "") for one in self._models)
        return (*tokens, *engines)

    async def commands(self, name: str, directive: str) -> tuple[tuple[str, ...], ...]:
        assert (name, directive) == ("mmd-back@game.service", "ExecStart")
        return tuple(("mmd", "activate", "--beside", one) for one in self._leased)

    async def manager_properties(self) -> dict[str, Any]:
        return self._properties


def now(*models: str, session: int = 1, state: str = "running", leased: tuple[str, ...] = ()) -> Manager:
    return cast("Manager", Units(*models, session=session, state=state, leased=leased))


@pytest.fixture(autouse=True)
def runtime(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


async def test_record_follows_what_is_resident() -> None:
    assert last_resident() == ()
    await record_resident(now("a", "b"))
    assert sorted(last_resident()) == ["a", "b"]
    await record_resident(now("b"))
    assert last_resident() == ("b",)
    await record_resident(now())
    assert last_resident() == ()


async def test_model_that_a_lease_has_unloaded_counts_as_resident() -> None:
    await record_resident(now("a", leased=("b",)))
    assert last_resident() == ("a", "b")
    await record_resident(now("a"))
    assert last_resident() == ("a",)


async def test_shutdown_leaves_the_record() -> None:
    await record_resident(now("a"))
    await record_resident(now(state="stopping"))
    assert last_resident() == ("a",)
    assert await pending_models(now(session=2, state="stopping")) == ()


async def test_new_session_finds_what_the_last_one_had() -> None:
    """Its gateway starts before the boot has loaded anything, and recorded that nothing is resident."""
    await record_resident(now("a"))
    await record_resident(now(session=2))
    assert last_resident() == ("a",)
    assert await pending_models(now(session=2)) == ("a",)
    assert await pending_models(now(session=2)) == ("a",), "a boot that was killed reads it again"


async def test_reboot_before_the_boot_restored_it() -> None:
    await record_resident(now("a", "b"))
    await record_resident(now("b", session=2))
    assert sorted(await pending_models(now(session=3))) == ["a", "b"]


async def test_boot_that_has_tried_ends_it() -> None:
    await record_resident(now("a", "b"))
    await pending_models(now(session=2))
    await record_resident(now("a", session=2))
    await clear_pending(now("a", session=2))
    assert last_resident() == ("a",)
    assert await pending_models(now(session=3)) == ("a",)


async def test_unchanged_record_is_not_written_again() -> None:
    await record_resident(now("a"))
    before = (state_dir() / "resident.json").stat()
    await record_resident(now("a"))
    assert (state_dir() / "resident.json").stat() == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"session": 1}', b"\xff"])
async def test_damaged_record_counts_as_empty(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    await record_resident(now("a"))
    (state_dir() / "resident.json").write_bytes(content)
    assert last_resident() == ()
    assert "counts as empty" in caplog.text
    await record_resident(now("b"))
    assert last_resident() == ("b",)


async def test_full_disk_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    await record_resident(now("a"))
    monkeypatch.setattr("mmd.control.state.last_resident.write_atomically", full)
    await record_resident(now("b"))
    assert "cannot be written" in caplog.text
    assert last_resident() == ("a",)


@pytest.mark.parametrize(
    ("pair", "counts"),
    [
        (Pair(UP, TOKEN), True),
        (Pair(STARTING, TOKEN), True),
        (Pair(FAILED, TOKEN), True),
        (Pair(UP, UnitState("inactive", "dead", "start")), True),
        (Pair(UP, LEAVING), False),
        (Pair(UP, DOWN), False),
        (Pair(FAILED, DOWN), False),
    ],
)
def test_models_that_count_as_resident(pair: Pair, counts: bool) -> None:
    assert resident_models({"a": pair}) == (("a",) if counts else ())


def test_suspended_model_counts_as_resident(tmp_path: Path) -> None:
    """A battery that runs flat in the suspend is a reboot, too."""
    (tmp_path / "mmd").mkdir()
    note_suspended(["b"])
    assert resident_models({"a": Pair(UP, TOKEN)}) == ("a", "b")

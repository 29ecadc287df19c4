"""Checks of mmd's own units, and of recent failures."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.doctor.background_read import BackgroundRead
from mmd.control.doctor.diagnosis import Level
from mmd.control.doctor.failures import RecentFailures, UnitFailure, check_failures
from mmd.control.doctor.units import check_units
from mmd.control.install.inspection import InstallKind, InstallState
from mmd.control.state import swap_events
from mmd.control.state.engine_log import Ended, ended_units

FILE = Path("/home/ada/.config/systemd/user/mmd.socket")
HERE = InstallState(
    kind=InstallKind.COPIED, program="/venv/bin/python", is_this=True, outdated=(), other_path=(), shadowing=(),
    dangling=(), unread=(), disabled=(), masked=(), silent=(), gateway_version=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("here", "state", "says", "hint"),
    [
        (HERE, Level.OK, "up to date and enabled (in your own unit folder)", ""),
        (replace(HERE, kind=InstallKind.PACKAGED), Level.OK, "up to date and enabled (from the package)", ""),
        (replace(HERE, kind=InstallKind.NONE), Level.WARNING, "not installed", "mmd install"),
        (
            replace(HERE, masked=("mmd.socket",)),
            Level.FAILED,
            "systemd never starts them: mmd.socket",
            "systemctl --user unmask mmd.socket",
        ),
        (
            replace(HERE, masked=("mmd-boot.service",)),
            Level.WARNING,
            "systemd never starts them: mmd-boot",
            "systemctl",
        ),
        (replace(HERE, is_this=False), Level.WARNING, "starts another mmd: /venv/bin/python", "mmd install"),
        (
            replace(HERE, is_this=False, kind=InstallKind.PACKAGED, program="/usr/bin/mmd"),
            Level.WARNING,
            "starts another mmd: /usr/bin/mmd",
            "/usr/bin/mmd doctor   # the package's mmd; to use this one: sudo apt remove mmd && mmd install",
        ),
        (
            replace(HERE, is_this=False, program="", masked=("mmd.service",)),
            Level.FAILED,
            "systemd never starts",
            "systemctl",
        ),
        (replace(HERE, shadowing=(FILE,)), Level.WARNING, f"{FILE} overrides the unit of the package", "mmd install"),
        (replace(HERE, outdated=(FILE, FILE)), Level.WARNING, f"{FILE} and 1 more", "mmd install"),
        (replace(HERE, other_path=(FILE,)), Level.WARNING, "another PATH than this shell", "mmd install"),
        (replace(HERE, dangling=(FILE,)), Level.WARNING, "enabled, but the unit file is gone", "mmd install"),
        (replace(HERE, disabled=("mmd.socket",)), Level.WARNING, "not enabled", "mmd install"),
        (
            replace(HERE, unread=("mmd.socket",)),
            Level.WARNING,
            "changed on disk since",
            "systemctl --user daemon-reload",
        ),
        (
            replace(HERE, gateway_version="0.0.1"),
            Level.WARNING,
            "has version 0.0.1",
            "systemctl --user restart mmd.service",
        ),
    ],
)
def test_units(here: InstallState, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_units(here)
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_all_problems_of_units_are_reported() -> None:
    here = replace(HERE, is_this=False, unread=("mmd.socket",), gateway_version=None)
    assert [diagnosis.state for diagnosis in check_units(here)] == [Level.WARNING, Level.WARNING]


# -- failures

MODEL = UnitFailure("mmd-model@qwen3.service", "the engine was killed by signal 11", None, 1, is_failed_now=True)


def reading_of(*failures: UnitFailure, is_journal_read: bool = True) -> BackgroundRead[RecentFailures]:
    return BackgroundRead("the journal", lambda: RecentFailures(failures, is_journal_read), hint="journalctl")


@pytest.mark.parametrize(
    ("failure", "state", "says", "hint"),
    [
        (MODEL, Level.FAILED, "qwen3: the engine was killed", "mmd logs qwen3   # then: mmd activate qwen3"),
        (replace(MODEL, is_failed_now=False), Level.WARNING, "qwen3: ", "mmd logs qwen3"),
        (replace(MODEL, times=3, is_failed_now=False), Level.WARNING, "(3 times in the last day)", "mmd logs qwen3"),
        (replace(MODEL, unit="mmd.service"), Level.FAILED, "mmd.service: ", "journalctl --user -u mmd.service"),
    ],
)
def test_failures(failure: UnitFailure, state: Level, says: str, hint: str) -> None:
    (diagnosis,) = check_failures(reading_of(failure))
    assert diagnosis.state is state
    assert says in diagnosis.message
    assert diagnosis.hint.startswith(hint)


def test_time_of_failure_is_shown_if_recorded() -> None:
    (diagnosis,) = check_failures(reading_of(replace(MODEL, at=1_800_000_000.0)))
    assert diagnosis.message[2] == ":"


def test_no_failure_is_ok() -> None:
    (diagnosis,) = check_failures(reading_of())
    assert diagnosis.state is Level.OK


def test_unreadable_journal_is_a_warning() -> None:
    (diagnosis,) = check_failures(reading_of(is_journal_read=False))
    assert (diagnosis.state, "the journal is not readable" in diagnosis.message) == (Level.WARNING, True)
    failure, unread = check_failures(reading_of(MODEL, is_journal_read=False))
    assert (failure.state, unread.state) == (Level.FAILED, Level.WARNING)


def test_hung_journal_is_a_warning() -> None:
    released = threading.Event()
    hung: BackgroundRead[RecentFailures] = BackgroundRead(
        "the journal", lambda: hang(released), hint="journalctl", limit_seconds=0.02
    )
    (diagnosis,) = check_failures(hung)
    released.set()
    assert (diagnosis.state, diagnosis.hint) == (Level.WARNING, "journalctl")


def hang(released: threading.Event) -> RecentFailures:
    released.wait(30)
    return RecentFailures((), is_journal_read=True)


EXITED, FAILED = "98e322203f7a4ed290d09fe03c09fe15", "d9b373ed55a64feb8242e02dbe79a49c"


def exited(unit: str, status: int, at_us: int) -> dict[str, str]:
    return {"MESSAGE_ID": EXITED, "USER_UNIT": unit, "EXIT_STATUS": str(status), "__REALTIME_TIMESTAMP": str(at_us)}


def noted(unit: str, result: str, at_us: int) -> dict[str, str]:
    return {"MESSAGE_ID": FAILED, "USER_UNIT": unit, "UNIT_RESULT": result, "__REALTIME_TIMESTAMP": str(at_us)}


def test_journal_events_are_parsed() -> None:
    a, other = "mmd-model@a.service", "other.service"
    notes = [
        exited(a, 11, 1),
        exited(other, 6, 2),
        noted(other, "signal", 3),
        noted(a, "core-dump", 4),
        exited(a, 1, 5),
        noted(a, "exit-code", 6),
    ]
    assert ended_units(notes) == [Ended(a, "core-dump", 11, 4), Ended(a, "exit-code", 1, 6)]


def test_start_limit_counts_as_one_failure() -> None:
    """The manager logs it again when it gives up; that was reported as `killed by signal 0`."""
    a = "mmd-model@a.service"
    assert ended_units([exited(a, 11, 1), noted(a, "signal", 2), noted(a, "signal", 3)]) == [Ended(a, "signal", 11, 2)]


def test_failure_without_a_process() -> None:
    a = "mmd-model@a.service"
    assert ended_units([noted(a, "resources", 1)]) == [Ended(a, "resources", 0, 1)]


def test_no_events() -> None:
    assert swap_events.recent() == []

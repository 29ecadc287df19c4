"""Background reads: time limits, dependencies, and one report per cause."""

from __future__ import annotations

import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed, kill_new_children
from mmd.control.doctor.checks import CHECKS, Check, run_all
from mmd.control.doctor.diagnosis import Level, ok
from mmd.control.doctor.readings import Readings
from mmd.errors import ManagerUnreachable


def raising(error: Exception) -> Any:
    raise error


@pytest.fixture
def hung() -> Iterator[BackgroundRead[int]]:
    """A read that hangs until the test ends."""
    released = threading.Event()

    def read() -> int:
        released.wait(30)
        return 0

    yield BackgroundRead("the hub", read, hint="curl hub", limit_seconds=0.02)
    released.set()


def test_value_is_read_once() -> None:
    reads = iter([7])
    reading = BackgroundRead("it", lambda: next(reads), hint="ls")
    assert (reading.value(), reading.value()) == (7, 7)


def test_hung_read_times_out(hung: BackgroundRead[int]) -> None:
    with pytest.raises(ReadFailed) as caught:
        hung.value()
    diagnosis = caught.value.diagnosis
    assert (diagnosis.state, diagnosis.message) == (Level.FAILED, "the hub did not answer within 0.02 s")
    assert diagnosis.hint == "curl hub"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ManagerUnreachable("no manager", hint="log in"), "no manager", "log in"),
        (PermissionError(13, "Permission denied", "/x"), "it cannot be read: Permission denied: /x", "ls"),
        (TimeoutError("timed out"), "it cannot be read: timed out", "ls"),
    ],
)
def test_error_becomes_the_diagnosis(error: Exception, message: str, hint: str) -> None:
    reading: BackgroundRead[int] = BackgroundRead("it", lambda: raising(error), hint="ls")
    with pytest.raises(ReadFailed) as caught:
        reading.value()
    assert (caught.value.diagnosis.message, caught.value.diagnosis.hint) == (message, hint)
    assert reading.value_or_none() is None


def test_bug_is_not_hidden() -> None:
    reading: BackgroundRead[int] = BackgroundRead("it", lambda: raising(KeyError("Version")), hint="ls")
    with pytest.raises(KeyError):
        reading.value_or_none()


def test_reads_after_a_failed_one_are_skipped(hung: BackgroundRead[int]) -> None:
    after: BackgroundRead[int] = BackgroundRead("units", lambda: hung.value() + 1, hint="ls", after=(hung,))
    twice: BackgroundRead[int] = BackgroundRead("sockets", lambda: after.value() + 1, hint="ls", after=(after,))
    other = BackgroundRead("other", lambda: 1, hint="ls")
    checks = (
        Check("manager", lambda _: [ok(f"{hung.value()}")]),
        Check("units", lambda _: [ok(f"{after.value()}")]),
        Check("sockets", lambda _: [ok(f"{twice.value()}")]),
        Check("other", lambda _: [ok(f"{other.value()}")]),
    )
    found = run_all(cast("Readings", SimpleNamespace()), checks)
    assert [(finding.check, finding.state) for finding in found] == [
        ("manager", Level.FAILED),
        ("units", Level.SKIPPED),
        ("sockets", Level.SKIPPED),
        ("other", Level.OK),
    ]
    assert {finding.message for finding in found[1:3]} == {"skipped, see: manager"}


def test_diagnoses_before_a_failure_are_kept(hung: BackgroundRead[int]) -> None:
    def run(_: Readings) -> Iterator[Any]:
        yield ok("the first half")
        hung.value()

    found = run_all(cast("Readings", SimpleNamespace()), [Check("it", run)])
    assert [finding.state for finding in found] == [Level.OK, Level.FAILED]


def test_bug_in_one_check_does_not_hide_others(caplog: pytest.LogCaptureFixture) -> None:
    broken: BackgroundRead[int] = BackgroundRead("it", lambda: raising(KeyError("Version")), hint="ls")
    checks = (
        Check("first", lambda _: [ok(f"{broken.value()}")]),
        Check("second", lambda _: [ok(f"{broken.value()}")]),
        Check("third", lambda _: [ok("fine")]),
    )
    first, second, third = run_all(cast("Readings", SimpleNamespace()), checks)
    assert (first.state, first.message) == (Level.FAILED, "this check failed by a bug in mmd: KeyError: 'Version'")
    assert (second.state, second.message) == (Level.SKIPPED, "skipped, see: first")
    assert third.state is Level.OK
    assert caplog.text.count("Traceback") == 1


def test_hung_program_is_killed_with_its_children() -> None:
    before = subprocess.Popen(("sleep", "1000"))
    try:
        with kill_new_children():
            hung = subprocess.Popen(("sh", "-c", "sleep 1000 & echo; wait"), stdout=subprocess.PIPE)
            assert hung.stdout is not None
            hung.stdout.readline()
        assert hung.wait(20) == -signal.SIGKILL
        assert select.select([hung.stdout], [], [], 20)[0], "the child still runs"  # it holds the pipe open
        hung.stdout.close()
        assert before.poll() is None
    finally:  # waiting for it would never return
        before.kill()
        before.wait(20)


def test_check_names_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)

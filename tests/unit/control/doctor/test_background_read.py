"""Readings: each in its own time, and whoever depends on one that failed says so once."""

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
    """A reading that does not end before the test does."""
    released = threading.Event()

    def read() -> int:
        released.wait(30)
        return 0

    yield BackgroundRead("the hub", read, look="curl hub", limit_seconds=0.02)
    released.set()


def test_it_is_read_once() -> None:
    reads = []
    reading = BackgroundRead("it", lambda: reads.append(1) or 7, look="ls")
    assert (reading.value(), reading.value(), reads) == (7, 7, [1])


def test_what_hangs_is_given_up(hung: BackgroundRead[int]) -> None:
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
def test_its_error_is_the_verdict(error: Exception, message: str, hint: str) -> None:
    reading: BackgroundRead[int] = BackgroundRead("it", lambda: raising(error), look="ls")
    with pytest.raises(ReadFailed) as caught:
        reading.value()
    assert (caught.value.diagnosis.message, caught.value.diagnosis.hint) == (message, hint)
    assert reading.value_or_none() is None


def test_a_fault_of_mmds_own_is_not_hidden() -> None:
    reading: BackgroundRead[int] = BackgroundRead("it", lambda: raising(KeyError("Version")), look="ls")
    with pytest.raises(KeyError):
        reading.value_or_none()


def test_those_that_depend_on_a_failure_are_not_looked_at(hung: BackgroundRead[int]) -> None:
    after: BackgroundRead[int] = BackgroundRead("units", lambda: hung.value() + 1, look="ls", after=(hung,))
    twice: BackgroundRead[int] = BackgroundRead("sockets", lambda: after.value() + 1, look="ls", after=(after,))
    other = BackgroundRead("other", lambda: 1, look="ls")
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


def test_findings_before_a_checks_failure_are_kept(hung: BackgroundRead[int]) -> None:
    def run(_: Readings) -> Iterator[Any]:
        yield ok("the first half")
        hung.value()

    found = run_all(cast("Readings", SimpleNamespace()), [Check("it", run)])
    assert [finding.state for finding in found] == [Level.OK, Level.FAILED]


def test_a_fault_of_mmds_own_does_not_hide_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    broken: BackgroundRead[int] = BackgroundRead("it", lambda: raising(KeyError("Version")), look="ls")
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


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    before = subprocess.Popen(("sleep", "1000"))
    try:
        with kill_new_children():
            hung = subprocess.Popen(("sh", "-c", "sleep 1000 & echo; wait"), stdout=subprocess.PIPE)
            assert hung.stdout is not None
            hung.stdout.readline()
        assert hung.wait(20) == -signal.SIGKILL
        assert select.select([hung.stdout], [], [], 20)[0], "what it has started runs"  # it has the pipe open
        hung.stdout.close()
        assert before.poll() is None
    finally:  # a wait for it would never end
        before.kill()
        before.wait(20)


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)

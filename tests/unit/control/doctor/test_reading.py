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

from mmd.control.doctor.examination import CHECKS, Check, judged
from mmd.control.doctor.finding import State, ok
from mmd.control.doctor.left_running import nothing_left_running
from mmd.control.doctor.reading import NotRead, Reading
from mmd.control.doctor.seen import Seen
from mmd.errors import ManagerUnreachable


def raising(error: Exception) -> Any:
    raise error


@pytest.fixture
def hung() -> Iterator[Reading[int]]:
    """A reading that does not end before the test does."""
    released = threading.Event()

    def read() -> int:
        released.wait(30)
        return 0

    yield Reading("the hub", read, look="curl hub", limit_seconds=0.02)
    released.set()


def test_it_is_read_once() -> None:
    reads = []
    reading = Reading("it", lambda: reads.append(1) or 7, look="ls")
    assert (reading.value(), reading.value(), reads) == (7, 7, [1])


def test_what_hangs_is_given_up(hung: Reading[int]) -> None:
    with pytest.raises(NotRead) as caught:
        hung.value()
    verdict = caught.value.verdict
    assert (verdict.state, verdict.message) == (State.FAILED, "the hub did not answer within 0.02 s")
    assert verdict.hint == "curl hub"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ManagerUnreachable("no manager", hint="log in"), "no manager", "log in"),
        (PermissionError(13, "Permission denied", "/x"), "it cannot be looked at: Permission denied: /x", "ls"),
        (TimeoutError("timed out"), "it cannot be looked at: timed out", "ls"),
    ],
)
def test_its_error_is_the_verdict(error: Exception, message: str, hint: str) -> None:
    reading: Reading[int] = Reading("it", lambda: raising(error), look="ls")
    with pytest.raises(NotRead) as caught:
        reading.value()
    assert (caught.value.verdict.message, caught.value.verdict.hint) == (message, hint)
    assert reading.value_or_none() is None


def test_a_fault_of_mmds_own_is_not_hidden() -> None:
    reading: Reading[int] = Reading("it", lambda: raising(KeyError("Version")), look="ls")
    with pytest.raises(KeyError):
        reading.value_or_none()


def test_those_that_depend_on_a_failure_are_not_looked_at(hung: Reading[int]) -> None:
    after: Reading[int] = Reading("units", lambda: hung.value() + 1, look="ls", after=(hung,))
    twice: Reading[int] = Reading("sockets", lambda: after.value() + 1, look="ls", after=(after,))
    other = Reading("other", lambda: 1, look="ls")
    checks = (
        Check("manager", lambda _: [ok(f"{hung.value()}")]),
        Check("units", lambda _: [ok(f"{after.value()}")]),
        Check("sockets", lambda _: [ok(f"{twice.value()}")]),
        Check("other", lambda _: [ok(f"{other.value()}")]),
    )
    found = judged(cast("Seen", SimpleNamespace()), checks)
    assert [(finding.check, finding.state) for finding in found] == [
        ("manager", State.FAILED),
        ("units", State.SKIPPED),
        ("sockets", State.SKIPPED),
        ("other", State.OK),
    ]
    assert {finding.message for finding in found[1:3]} == {"not looked at, see: manager"}


def test_findings_before_a_checks_failure_are_kept(hung: Reading[int]) -> None:
    def judge(_: Seen) -> Iterator[Any]:
        yield ok("the first half")
        hung.value()

    found = judged(cast("Seen", SimpleNamespace()), [Check("it", judge)])
    assert [finding.state for finding in found] == [State.OK, State.FAILED]


def test_a_fault_of_mmds_own_does_not_hide_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    broken: Reading[int] = Reading("it", lambda: raising(KeyError("Version")), look="ls")
    checks = (
        Check("first", lambda _: [ok(f"{broken.value()}")]),
        Check("second", lambda _: [ok(f"{broken.value()}")]),
        Check("third", lambda _: [ok("fine")]),
    )
    first, second, third = judged(cast("Seen", SimpleNamespace()), checks)
    assert (first.state, first.message) == (State.FAILED, "mmd could not look at this: KeyError: 'Version'")
    assert (second.state, second.message) == (State.SKIPPED, "not looked at, see: first")
    assert third.state is State.OK
    assert caplog.text.count("Traceback") == 1


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    before = subprocess.Popen(("sleep", "1000"))
    try:
        with nothing_left_running():
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

"""Files that several processes share: watched, locked, kept aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmd.errors import StorageFailed
from mmd.files import ReloadOnChange, keep_aside, locked, retry_delays


def test_value_is_read_again_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    watched = ReloadOnChange(file, lambda: [file.read_text()] if file.exists() else [])
    assert watched.current() == [] and watched.current() is watched.current()
    file.write_text("first")
    assert watched.current() == ["first"] and watched.current() is watched.current()
    file.write_text("second")
    assert watched.current() == ["second"]
    file.unlink()
    assert watched.current() == []


def test_value_stays_while_the_file_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"

    def read() -> str:
        if file.read_text() == "damaged":
            raise StorageFailed("the file is damaged", hint="")
        return file.read_text()

    file.write_text("damaged")
    watched = ReloadOnChange(file, read, initial="initial", keeps="the values")
    assert watched.current() == "initial" and watched.current() == "initial"
    assert caplog.messages == ["the file is damaged; the values stay as they are"]  # and not at each call
    file.write_text("repaired")
    assert watched.current() == "repaired"


def test_failed_read_is_tried_again_if_nothing_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    answers = iter((StorageFailed("not yet", hint=""), "there"))

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, StorageFailed):
            raise answer
        return answer

    watched = ReloadOnChange(file, read)
    with pytest.raises(StorageFailed):
        watched.current()
    assert watched.current() == "there"


def test_lock_is_exclusive_and_released_on_close(tmp_path: Path) -> None:
    file = tmp_path / "below" / "lock"
    with locked(file), pytest.raises(BlockingIOError):
        locked(file, timeout_seconds=0.01)
    with locked(file, timeout_seconds=0):
        assert file.stat().st_mode & 0o777 == 0o600


def test_retry_delays_grow_up_to_a_limit() -> None:
    delays = retry_delays()
    seconds = [next(delays) for _ in range(20)]
    assert seconds == sorted(seconds) and seconds[0] < 0.005 and seconds[-1] == 0.05


def test_damaged_file_is_named_after_its_last_change(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    file.write_text("{")
    os.utime(file, (0, 0))
    kept = keep_aside(file)
    assert kept.name == "learned.json.damaged-19700101T000000Z" and kept.read_text() == "{" and not file.exists()

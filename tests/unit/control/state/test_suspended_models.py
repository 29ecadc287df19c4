"""Who is away while the machine sleeps is noted where the next gateway finds it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mmd.control.lifecycle.suspend import bring_back
from mmd.control.state.suspended_models import away, nobody_is_away, note_away


def test_who_is_away_still_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mmd").mkdir()
    assert away() == ()
    note_away(["a"])
    note_away(["b"])
    note_away(["a"])
    note_away([])
    assert away() == ("a", "b")
    nobody_is_away()
    nobody_is_away()
    assert away() == ()


async def test_whatever_keeps_one_away_the_others_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked = []

    async def broken(model_id: str) -> None:
        asked.append(model_id)
        raise KeyError(model_id)

    await bring_back(broken, ["a", "b"])
    assert asked == ["a", "b"]
    assert "a does not come back" in caplog.text and "KeyError" in caplog.text


def test_note_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("mmd.control.state.suspended_models.write_atomically", full)
    note_away(["a"])
    assert "who is to come back cannot be noted" in caplog.text
    assert away() == ()

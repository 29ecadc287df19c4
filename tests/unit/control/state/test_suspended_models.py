"""Suspended models are recorded where the next gateway finds them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mmd.control.lifecycle.suspend import restore_models
from mmd.control.state.suspended_models import forget_suspended, note_suspended, suspended_models


def test_suspended_model_stays_suspended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mmd").mkdir()
    assert suspended_models() == ()
    note_suspended(["a"])
    note_suspended(["b"])
    note_suspended(["a"])
    note_suspended([])
    assert suspended_models() == ("a", "b")
    forget_suspended(["b", "x"])
    assert suspended_models() == ("a",)
    forget_suspended(["a"])
    forget_suspended(["a"])
    assert suspended_models() == ()


async def test_whatever_keeps_one_away_the_others_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked = []

    async def broken(model_id: str) -> None:
        asked.append(model_id)
        raise KeyError(model_id)

    note_suspended(["a", "b", "c"])
    await restore_models(broken, ["a", "b"])
    assert suspended_models() == ("c",)
    assert asked == ["a", "b"]
    assert "cannot restore a" in caplog.text and "KeyError" in caplog.text


def test_note_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("mmd.control.state.suspended_models.write_atomically", full)
    note_suspended(["a"])
    assert "the models to restore cannot be written" in caplog.text
    assert suspended_models() == ()

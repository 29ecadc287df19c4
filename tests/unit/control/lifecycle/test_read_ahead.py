from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mmd.control.lifecycle.read_ahead import ReadAhead, worthwhile

GIB = 1024**3


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What the kernel was told, instead of telling it: whether it then reads is the kernel's affair."""
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, offset, length, advice: told.append((offset, length, advice)))
    return told


def test_whole_file_is_asked_for_in_steps(tmp_path: Path, advised: list[tuple[int, int, int]]) -> None:
    file = tmp_path / "weights"
    file.touch()
    os.truncate(file, 20 * 1024**2)
    ahead = ReadAhead([str(file)])
    with ahead:
        ahead.join(10)
    step = 8 * 1024**2
    assert advised == [(offset, step, os.POSIX_FADV_WILLNEED) for offset in (0, step, 2 * step)]


def test_end_comes_before_the_end_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.touch()
    os.truncate(file, 80 * 1024**3)
    told = 0

    def advise(*_: int) -> None:
        nonlocal told
        told += 1
        ahead.stop()

    monkeypatch.setattr(os, "posix_fadvise", advise)
    ahead = ReadAhead([str(file), str(file)])
    with ahead:
        ahead.join(10)
    assert told == 1


def test_missing_file_is_the_engines_to_complain_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmd")
    ahead = ReadAhead([str(tmp_path / "gone")])
    with ahead:
        ahead.join(10)
    assert "could not be read ahead: No such file" in caplog.text


@pytest.mark.parametrize(
    ("weights", "available", "expected"), [(10, 20, True), (18, 20, False), (16, 20, True), (40, 20, False)]
)
def test_only_what_stays_in_the_cache_is_read(weights: int, available: int, expected: bool) -> None:
    assert worthwhile(weights * GIB, available * GIB, 32 * GIB) is expected

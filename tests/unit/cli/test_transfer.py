"""The progress of a long read: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from mmd.cli import transfer
from mmd.cli.transfer import Transfer

GB = 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(transfer, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_line_on_a_terminal_is_redrawn_and_gone_at_the_end(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    with Transfer("verified", 30 * GB) as progress:
        progress(1)
        assert capsys.readouterr().err == "", "quick work needs no line"
        clock(10)
        progress(10 * GB)
        progress(11 * GB)  # not again at once
        drawn = capsys.readouterr().err
        assert drawn == "\r\x1b[Kverified 9.3 GiB of 27.9 GiB · 33 % · 954 MiB/s · 0:20 left"
    assert capsys.readouterr().err == "\r\x1b[K"


def test_lines_elsewhere_are_few_and_whole(clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Transfer("copied", 3600 * GB) as progress:
        for number in range(100):
            clock(1)
            progress(number * GB)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("copied 27.0 GiB of 3352.8 GiB · 0 % · 922 MiB/s · 1:01:")


def test_nothing_done_has_no_rate(clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Transfer("copied", 0) as progress:
        clock(60)
        progress(0)
    assert capsys.readouterr().err == "copied 0.0 MiB of 0.0 MiB · 0 %\n"

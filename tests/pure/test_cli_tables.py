"""Tables for people: in one line each where there is room, and never broken in the middle of a cell."""

from __future__ import annotations

import sys

import pytest

from mmd.cli.text import print_named_table

_HEADING = ("REPOSITORY", "FILE", "SIZE")
_ROWS = [("owner/a-long-name", "Q4_K_M", "4.7 GiB"), ("o/b", "Q8_0", "10 GiB")]
_WIDTH = 34  # of the widest line


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    return monkeypatch


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_named_table(_HEADING, _ROWS)
    return [
        line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
        for line in capsys.readouterr().out.splitlines()
    ]


def test_a_line_each_where_there_is_room(terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.setenv("COLUMNS", str(_WIDTH))
    assert printed(capsys) == [
        "REPOSITORY         FILE    SIZE",
        "owner/a-long-name  Q4_K_M  4.7 GiB",
        "o/b                Q8_0    10 GiB",
    ]


def test_two_lines_each_where_there_is_not(terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.setenv("COLUMNS", str(_WIDTH - 1))
    assert printed(capsys) == [
        "REPOSITORY",
        "  FILE    SIZE",
        "owner/a-long-name",
        "  Q4_K_M  4.7 GiB",
        "o/b",
        "  Q8_0    10 GiB",
    ]


def test_who_reads_a_pipe_gets_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert len(printed(capsys)) == 1 + len(_ROWS)

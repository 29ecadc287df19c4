"""Tables: one line per row if the terminal is wide enough, and no cell is broken."""

from __future__ import annotations

import sys

import pytest

from mmd.cli.output import print_named_table

_HEADING = ("REPOSITORY", "FILE", "SIZE")
_ROWS = [("owner/a-long-name", "Q4_K_M", "4.7 GiB"), ("o/b", "Q8_0", "10 GiB")]
_WIDTH = 34  # of the widest line


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int) -> list[str]:
    """Print to a terminal of this many columns, or to a pipe if 0."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: columns > 0)
    print_named_table(_HEADING, _ROWS)
    return [
        line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
        for line in capsys.readouterr().out.splitlines()
    ]


def test_a_line_each_where_there_is_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(monkeypatch, capsys, _WIDTH) == [
        "REPOSITORY         FILE    SIZE",
        "owner/a-long-name  Q4_K_M  4.7 GiB",
        "o/b                Q8_0    10 GiB",
    ]


def test_two_lines_each_where_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(monkeypatch, capsys, _WIDTH - 1) == [
        "REPOSITORY",
        "  FILE    SIZE",
        "owner/a-long-name",
        "  Q4_K_M  4.7 GiB",
        "o/b",
        "  Q8_0    10 GiB",
    ]


def test_who_reads_a_pipe_gets_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(printed(monkeypatch, capsys, 0)) == 1 + len(_ROWS)


def test_continued_rows_have_no_line_for_an_empty_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_named_table(_HEADING, [_ROWS[0], ("", "F16", "20 GiB")])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 + 1

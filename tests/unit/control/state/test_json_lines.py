"""Records in files that other processes rotate."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmd.control.state.json_lines import JsonLines


def test_rotation_while_it_is_read_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was looked for, rotated by another process, and then opened: FileNotFoundError."""
    lines = JsonLines(tmp_path / "events.jsonl", int, 1_000_000)
    for number in range(3):
        lines.append(number)
    read_bytes, rotations = Path.read_bytes, [True]

    def rotated_first(path: Path) -> bytes:
        if path == lines.file and rotations:
            rotations.clear()
            path.replace(tmp_path / "events.1.jsonl")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", rotated_first)
    assert lines.records() == [0, 1, 2]


def test_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert JsonLines(tmp_path / "events.jsonl", int, 100).records() == []


def test_damaged_line_takes_no_other_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = JsonLines(tmp_path / "events.jsonl", int, 100)
    lines.append(1)
    with lines.file.open("a") as file:
        file.write('"cut\n[]\n')
    lines.append(2)
    assert lines.records() == [1, 2]
    assert lines.records(1) == [2]
    assert caplog.text.count("has a damaged line") == 2

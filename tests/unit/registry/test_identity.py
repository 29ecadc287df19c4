"""Weights are told apart by what the cache calls them, or by the file itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmd.registry.identity import identity


def test_a_file_that_was_written_to_is_another(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"one")
    before = identity([str(file)])
    assert identity([str(file)]) == before
    file.write_bytes(b"two!")
    assert identity([str(file)]) != before


def test_a_moved_file_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"one")
    before = identity([str(file)])
    (tmp_path / "elsewhere").mkdir()
    assert identity([str(file.rename(tmp_path / "elsewhere/a.gguf"))]) == before


def test_in_the_cache_it_is_the_content_that_counts(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("a1" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    for name in ("one.gguf", "another.gguf"):
        (tmp_path / name).symlink_to(blob)
    before = identity([str(tmp_path / "one.gguf")])
    os.utime(blob, (1, 1))
    assert identity([str(tmp_path / "another.gguf")]) == before


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        identity([str(tmp_path / "gone.gguf")])

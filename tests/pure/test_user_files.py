"""The user's own unit folder: what is written there, and what of others' is not lost."""

from __future__ import annotations

import os

import pytest

from mmd.errors import StorageFailed
from mmd.units import user_files


def _full_disk(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_the_unit_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would be masked."""
    file = user_files.unit_file("mmd.socket")
    user_files.put({file: b"[Socket]\n"})
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(StorageFailed, match="No space left on device"):
        user_files.put({file: b"[Socket]\nListenStream=1\n"})
    assert user_files.present() == {file: b"[Socket]\n"}
    assert list(file.parent.iterdir()) == [file]

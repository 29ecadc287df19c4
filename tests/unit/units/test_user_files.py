"""The user's unit folder: what mmd writes there, and files of others that it must keep."""

from __future__ import annotations

import os

import pytest

from mmd.errors import StorageFailed
from mmd.units import user_files
from mmd.units.unit_files import PACKAGED_COMMAND, unit_text


def test_unit_that_the_user_has_edited_is_set_aside() -> None:
    """`systemctl --user edit --full` copies the package's unit, and the copy was deleted."""
    edited = user_files.unit_file("mmd.service")
    whole = unit_text("mmd.service", PACKAGED_COMMAND).encode()
    same, drop_in = user_files.unit_file("mmd.socket"), edited.with_name("mmd.service.d") / "50-mmd.conf"
    before = {
        edited: whole + b"# mine\n",
        same: unit_text("mmd.socket", PACKAGED_COMMAND).encode(),
        drop_in: b"[Unit]\n",
    }
    user_files.put(before)
    assert user_files.put({}) == (edited,)
    assert edited.with_name("mmd.service.bak").read_bytes() == before[edited]
    assert list(edited.parent.iterdir()) == [edited.with_name("mmd.service.bak")]


def test_whole_units_of_an_older_version_are_mmds_own() -> None:
    gateway, main = user_files.unit_file("mmd.service"), user_files.unit_file("mmd.socket")
    user_files.put({gateway: b"[Service]\nExecStart=/old/python3 -P -m mmd gateway\n", main: b"[Socket]\n# older\n"})
    assert user_files.put({}) == ()
    assert not list(gateway.parent.iterdir())


def _full_disk(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_full_disk_keeps_the_existing_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty unit file would be masked."""
    file = user_files.unit_file("mmd.socket.d") / "50-mmd.conf"
    user_files.put({file: b"[Socket]\n"})
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(StorageFailed, match="No space left on device"):
        user_files.put({file: b"[Socket]\nListenStream=1\n"})
    assert user_files.present() == {file: b"[Socket]\n"}
    assert list(file.parent.iterdir()) == [file]

"""mmd's folders are private to their user, whatever created them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmd import paths
from mmd.atomic import write_atomically
from mmd.control.state import swap_events
from mmd.control.state.swap_events import SwapEvent
from mmd.paths import make_private
from mmd.registry.store import Registry
from tests.tiny_models import tiny_gguf


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("place", [paths.data_dir, paths.config_dir, paths.cache_dir, paths.state_dir])
def test_every_folder_on_the_way_is_made_private(place: Callable[[], Path]) -> None:
    """mkdir(mode=0o700, parents=True) made `mmd` itself readable for all if a folder below it was created first."""
    make_private(place() / "below" / "it")
    assert [mode(folder) for folder in (place() / "below/it", place() / "below", place())] == [0o700] * 3


@pytest.mark.parametrize("place", [paths.data_dir, paths.config_dir, paths.cache_dir, paths.state_dir])
def test_old_readable_folder_is_made_private_at_the_next_write(place: Callable[[], Path]) -> None:
    (place() / "below").mkdir(parents=True)
    above = place().parent
    place().chmod(0o755)
    (place() / "below").chmod(0o775)
    above.chmod(0o755)
    write_atomically(place() / "below" / "file", b"content")
    assert (mode(place() / "below"), mode(place())) == (0o700, 0o700)
    assert mode(above) == 0o755, "that one belongs to everybody"


def test_folder_that_is_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o755)
    make_private(tmp_path / "theirs")
    assert mode(tmp_path / "theirs") == 0o755


def test_reading_changes_no_mode(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    paths.data_dir().chmod(0o755)
    Registry().all()
    assert mode(paths.data_dir()) == 0o755
    Registry().remove("a")
    assert mode(paths.data_dir()) == 0o700


def test_note_of_a_swap_tightens_the_state(tmp_path: Path) -> None:
    paths.state_dir().mkdir(parents=True)
    paths.state_dir().chmod(0o755)
    swap_events.keep(SwapEvent("2026-01-01T00:00:00Z", "a", (), "resident", "not loaded", "", 1.0, {}))
    assert mode(paths.state_dir()) == 0o700

"""Files that are there and that this user may not see: never a traceback, and never taken for gone.

By processes without the privilege to look into any folder, which root has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.registry.store import Registry
from tests.hub_cache import cached_repository
from tests.tiny_models import sparse_gguf
from tests.unit.cli.test_cli import refused

_UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def mmd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_UNPRIVILEGED, sys.executable, "-m", "mmd", *words], capture_output=True, text=True, check=False, timeout=50
    )


@pytest.fixture(params=["a folder", "the cache", "its blobs"])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The folder that cannot be entered; the model is "a"."""
    file = sparse_gguf(tmp_path / "a.gguf")
    if request.param == "a folder":
        folder = tmp_path / "m"
        folder.mkdir()
        Registry().add(file.rename(folder / "a.gguf"))
    else:
        snapshot = cached_repository(tmp_path / "hub", "Org/A", {"a.gguf": file.read_bytes()})
        file.unlink()
        Registry().add(snapshot / "a.gguf", id="a")
        folder = tmp_path / "hub" if request.param == "the cache" else (snapshot / "a.gguf").resolve().parent
    folder.chmod(0o600)
    yield folder
    folder.chmod(0o700)


def test_model_is_neither_forgotten_nor_deleted(closed: Path) -> None:
    said, hint = refused(mmd("remove", "a", "--files", "--yes"), 1)
    assert "cannot be read: Permission denied" in said
    assert hint.startswith("namei -l ")
    assert [model.id for model in Registry().all()] == ["a"]


def test_reading_verbs_say_so(closed: Path) -> None:
    verified = mmd("verify")
    assert verified.returncode == 1
    assert "unreadable (Permission denied)" in verified.stdout
    assert "1 missing" in mmd("disk").stdout
    assert "cannot be read: Permission denied" in mmd("show", "a").stderr


def test_scan_leaves_it_out(closed: Path) -> None:
    added = mmd("add", str(closed.parent))
    assert "Traceback" not in added.stderr
    assert "Permission denied" in added.stderr

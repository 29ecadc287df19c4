"""`mmd remove --files`: the engine stops first, then the record is removed, then the files."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mmd.control.state.refused_flags import RefusedFlags
from mmd.registry import manifest
from mmd.registry.store import Registry
from tests.tiny_models import sparse_gguf
from tests.unit.cli.test_cli import mmd, refused
from tests.user_manager import UserManager

pytestmark = pytest.mark.manager


def test_running_model_is_stopped_forgotten_and_deleted(
    systemd: UserManager, fake_llama_server: Path, tmp_path: Path
) -> None:
    file = sparse_gguf(tmp_path / "tiny.gguf")
    model = Registry().add(file)
    manifest.write(model, {model.path: "0" * 64})
    RefusedFlags().remember("tiny", "llama.cpp", ["--flag"], "no")
    assert mmd("activate", "tiny").returncode == 0

    said, hint = refused_after_data(mmd("remove", "tiny", "--files"))
    assert "no terminal" in said
    assert hint == "mmd remove tiny --files --yes"
    assert Registry().all() == (model,)

    done = mmd("remove", "tiny", "--files", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"delete {file}")
    assert json.loads(mmd("status", "--json").stdout)["resident"] == []
    assert Registry().all() == ()
    assert (file.exists(), manifest.file_for("tiny").exists()) == (False, False)
    assert RefusedFlags().refused("tiny") == {}


@pytest.mark.parametrize(("answer", "status"), [("n", 130), ("y", 0)])
def test_terminal_is_asked(systemd: UserManager, tmp_path: Path, answer: str, status: int) -> None:
    file = sparse_gguf(tmp_path / "tiny.gguf")
    Registry().add(file)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        words = [sys.executable, "-m", "mmd", "remove", "tiny", "--files"]
        done = subprocess.run(words, stdin=theirs, capture_output=True, text=True, check=False, timeout=50)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == status, done.stderr
    assert "Unregister tiny and delete 1 file" in done.stderr
    assert file.exists() is (answer == "n")


def refused_after_data(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """The list of files comes before the refusal."""
    done.stdout = ""
    return refused(done, 2)


def test_archive_that_moves_deletes_only_what_it_has_compared(systemd: UserManager, tmp_path: Path) -> None:
    file = sparse_gguf(tmp_path / "tiny.gguf")
    Registry().add(file)
    (tmp_path / "nas").mkdir()
    done = mmd("archive", "tiny", str(tmp_path / "nas"), "--move")
    assert done.returncode == 0, done.stderr
    assert not file.exists()
    assert (tmp_path / "nas/tiny/tiny.gguf").exists()
    assert Registry().all() == ()
    assert mmd("restore", str(tmp_path / "nas/tiny")).returncode == 0

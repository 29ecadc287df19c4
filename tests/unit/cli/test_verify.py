"""`mmd verify` from outside."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmd.registry.store import Registry
from tests.fakes.hub import FakeHub, FakeRepository
from tests.tiny_models import tiny_gguf
from tests.unit.cli.test_cli import mmd, refused


def test_verify_records_then_compares_then_tells(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "a.gguf")
    Registry().add(file)
    first = mmd("verify")
    assert (first.returncode, first.stdout.split("(")[0]) == (0, "a: recorded ")
    assert "the current one is now the reference" in first.stderr
    second = mmd("verify", "a")
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.startswith("a: intact (1 file, ")

    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    third = mmd("verify", "a")
    assert third.returncode == 1
    assert "expected" in third.stdout
    assert "found" in third.stdout
    (finding,) = json.loads(mmd("verify", "--json").stdout)
    assert (finding["verdict"], finding["path"]) == ("damaged", str(file))

    assert mmd("verify", "a", "--trust").returncode == 0
    assert mmd("verify", "a").returncode == 0


def test_verify_without_models() -> None:
    refused(mmd("verify", "--trust"), 2)
    refused(mmd("verify", "a"), 3)
    done = mmd("verify")
    assert done.returncode == 0
    assert "mmd add PATH" in done.stderr


def test_command_that_verify_gives_mends_the_file(
    hub: FakeHub, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    content = tiny_gguf(tmp_path / "a.gguf").read_bytes()
    hub.repositories["org/a-gguf"] = FakeRepository({"q/a.gguf": content})
    subprocess.run(["hf", "download", "org/a-gguf", "q/a.gguf"], check=True, capture_output=True, timeout=50)
    added = mmd("add")
    assert added.stdout.splitlines()[1].startswith("a "), added.stderr
    (blob,) = own_home.glob(".cache/huggingface/hub/models--*/blobs/*")
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    told = mmd("verify", "a")
    assert told.returncode == 1
    assert "from the hub" in told.stdout
    command = shlex.split(told.stdout.rpartition("→ ")[2])
    subprocess.run(command, check=True, capture_output=True, timeout=50)
    assert blob.read_bytes() == content
    assert mmd("verify", "a").returncode == 0

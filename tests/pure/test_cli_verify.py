"""`mmd verify` from outside."""

from __future__ import annotations

import json
from pathlib import Path

from mmd.registry.store import Registry
from tests.pure.test_cli import mmd, refused
from tests.tiny_models import tiny_gguf


def test_verify_records_then_compares_then_tells(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "a.gguf")
    Registry().add(file)
    first = mmd("verify")
    assert (first.returncode, first.stdout.split("(")[0]) == (0, "a: recorded ")
    assert "trusted as they are now" in first.stderr
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


def test_verify_of_nobody() -> None:
    refused(mmd("verify", "--trust"), 2)
    refused(mmd("verify", "a"), 3)
    done = mmd("verify")
    assert done.returncode == 0
    assert "mmd add PATH" in done.stderr

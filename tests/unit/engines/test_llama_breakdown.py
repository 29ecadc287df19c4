"""llama-server is asked what a model would take, and is gone when it has said so, or nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mmd.control.memory.breakdowns import Breakdowns
from mmd.engines.llama import breakdown
from mmd.engines.llama.breakdown import report_breakdown
from mmd.engines.llama.engine import LLAMA_SERVER
from mmd.errors import EngineFailed, EngineMissing
from mmd.plan.breakdown import Breakdown, Row
from mmd.plan.engine import Installed
from mmd.quantities import MIB

ROW = '{"kind":"host","name":"Host","self":7,"model":4,"context":2,"compute":1}'
RECORD = f'{{"type":"fit_memory_breakdown","data":{{"unit":"MiB","rows":[{ROW}]}}}}'
FOUND = Breakdown((Row("Host", False, 4 * MIB, 2 * MIB, MIB),))


def engine(
    folder: Path, script: str, *, flags: frozenset[str] = frozenset({"--no-warmup", "--log-jsonl"})
) -> Installed:
    program = folder / "llama-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Installed(LLAMA_SERVER, (str(program),), "1", flags)


def gone(pid: int) -> bool:
    """A killed child of a killed parent disappears when the process that inherited it has reaped it."""
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text("ascii").split(")")[1][:3]:
        assert time.monotonic() < end
        time.sleep(0.01)
    return True


def test_it_is_killed_with_its_children_once_it_has_said_it(tmp_path: Path) -> None:
    script = f"sleep 100 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/self; echo '{RECORD}'; wait"
    assert report_breakdown(engine(tmp_path, script), ("-m", "x"), sees_gpus=True) == FOUND
    assert all(gone(int((tmp_path / name).read_text())) for name in ("child", "self"))


def test_what_it_is_asked(tmp_path: Path) -> None:
    script = f"""echo "$@" >{tmp_path}/asked; echo "[$CUDA_VISIBLE_DEVICES]" >>{tmp_path}/asked; echo '{RECORD}'"""
    report_breakdown(engine(tmp_path, script), ("-m", "x", "-c", "4096"), sees_gpus=False)
    words, devices = (tmp_path / "asked").read_text().splitlines()
    assert words.startswith("-m x -c 4096 --no-warmup --log-jsonl --host /")
    assert devices == "[]"


def test_it_ends_without_a_word_of_it(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="did not report") as raised:
        report_breakdown(engine(tmp_path, "echo loading; echo 'no such file' >&2; exit 1"), ("-m", "x"), sees_gpus=True)
    assert raised.value.engine_lines == ("loading", "no such file")
    assert raised.value.hint.endswith("-m x --no-warmup --log-jsonl")


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(EngineFailed):
        report_breakdown(engine(tmp_path, f"echo $$ >{tmp_path}/self; sleep 100"), ("-m", "x"), sees_gpus=True)
    assert gone(int((tmp_path / "self").read_text()))


def test_one_that_talks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(EngineFailed) as raised:
        report_breakdown(engine(tmp_path, "while :; do echo loading; done"), ("-m", "x"), sees_gpus=True)
    assert len(raised.value.engine_lines) == 60


def test_one_that_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="does not accept --log-jsonl"):
        report_breakdown(engine(tmp_path, "", flags=frozenset({"--no-warmup"})), ("-m", "x"), sees_gpus=True)


def test_what_it_has_said_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmd.control.memory.breakdowns._MAX_TABLES", 2)
    known = Breakdowns()
    assert known.get("a") is None
    for key in ("a", "b", "c"):
        known.put(key, FOUND)
    assert (known.get("a"), known.get("c")) == (None, FOUND)
    known.file.write_text("[")
    assert known.get("c") is None
    known.put("d", FOUND)
    assert known.get("d") == FOUND
    os.truncate(known.file, 0)
    assert known.get("d") is None

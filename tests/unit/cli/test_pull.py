"""`mmd pull` as a process, with a hub on this machine."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.registry.store import Registry
from tests.fakes.hub import COMMIT, FakeHub, FakeRepository, OnDisk
from tests.tiny_models import tiny_gguf

PATIENCE_SECONDS = 30.0
COMMAND = (sys.executable, "-m", "mmd", "pull")


@pytest.fixture(autouse=True)
def tiny(hub: FakeHub, tmp_path: Path) -> None:
    weights = tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    hub.repositories["me/tiny-GGUF"] = FakeRepository(
        {"tiny-Q4_K_M.gguf": weights, "tiny-Q8_0.gguf": weights + bytes(1 << 20)}
    )


def pull(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*COMMAND, *words), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def test_a_model(hub: FakeHub) -> None:
    done = pull("me/tiny-GGUF:Q4_K_M")
    assert (done.returncode, done.stdout) == (0, "tiny\n"), done.stderr
    first, last = done.stderr.splitlines()
    assert first.startswith("me/tiny-GGUF: tiny-Q4_K_M.gguf, ")
    assert last.endswith("start it: mmd activate tiny")
    assert Registry().get("tiny").source == f"hf:me/tiny-GGUF@{COMMIT}"


def test_as_json_by_a_link(hub: FakeHub) -> None:
    done = pull(f"{hub.url}/me/tiny-GGUF/blob/main/tiny-Q8_0.gguf", "--id", "mine", "--json")
    assert json.loads(done.stdout)["id"] == "mine"


def test_the_file_that_suits_the_machine(hub: FakeHub) -> None:
    """It says why, and under which licence."""
    hub.repositories["me/tiny-GGUF"].card = {"license": "cc-by-nc-4.0"}
    done = pull("me/tiny-GGUF")
    assert (done.returncode, done.stdout) == (0, "tiny\n"), done.stderr
    chosen, licence, _ = done.stderr.splitlines()
    assert chosen.startswith("me/tiny-GGUF: tiny-Q8_0.gguf, ") and chosen.count(": ") == 2
    assert "cc-by-nc-4.0" in licence and "commercial" in licence
    assert Registry().get("tiny").licence == "cc-by-nc-4.0"


def test_none_suits_the_machine(hub: FakeHub, tmp_path: Path) -> None:
    huge = tmp_path / "huge.gguf"
    huge.touch()
    os.truncate(huge, 1 << 43)
    one = OnDisk(huge, sha256="0" * 64)
    hub.repositories["me/huge-GGUF"] = FakeRepository({"huge-Q4_0.gguf": one, "huge-Q8_0.gguf": one})
    done = pull("me/huge-GGUF")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 2), done.stderr
    assert "mmd pull me/huge-GGUF:huge-Q" in done.stderr
    too_large = pull("me/huge-GGUF:huge-Q4_0.gguf")
    assert (too_large.returncode, "GiB more" in too_large.stderr) == (1, True), too_large.stderr


def test_errors_are_two_lines(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["me/tiny-GGUF"].gated = True
    wrong = {"tiny": 2, "me/none": 3, "me/tiny-GGUF:Q4_K_M": 1}
    for word, status in wrong.items():
        done = pull(word)
        said = [line for line in done.stderr.splitlines() if not line.startswith("me/tiny-GGUF: ")]
        assert (done.returncode, len(said)) == (status, 2), done.stderr
    assert f"{hub.url}/me/tiny-GGUF" in said[1] and "hf auth login" in said[1]


def test_offline_from_the_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    pull("me/tiny-GGUF:Q4_K_M")
    Registry().remove("tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = pull("me/tiny-GGUF")
    assert (done.stdout, "HF_HUB_OFFLINE is set" in done.stderr) == ("tiny\n", True)
    nothing = pull("me/tiny-GGUF:Q8_0")
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (1, 2)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Background jobs of a shell ignore Ctrl-C, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_on_a_terminal(hub: FakeHub) -> None:
    """A terminal shows the progress; Ctrl-C prints the command that continues, and it does."""
    hub.hold.clear()
    ours, theirs = pty.openpty()
    with subprocess.Popen((*COMMAND, "me/tiny-GGUF:Q8_0", "--id", "mine"), stderr=theirs, stdout=theirs) as program:
        os.close(theirs)
        try:
            shown = ""
            while " · 50 %" not in shown:
                shown += os.read(ours, 4096).decode()
            program.send_signal(signal.SIGINT)
            shown += _rest(ours)
            program.wait()
        finally:
            program.kill()  # otherwise a failure would wait for it, and it for the hub
    os.close(ours)
    assert program.returncode == -signal.SIGINT
    assert "Continue: mmd pull me/tiny-GGUF:Q8_0 --id mine" in shown
    hub.hold.set()
    assert pull("me/tiny-GGUF:Q8_0", "--id", "mine").stdout == "mine\n"
    size = len(hub.repositories["me/tiny-GGUF"].files["tiny-Q8_0.gguf"])  # type: ignore[arg-type]
    assert hub.asked_for("GET", "/cdn/")[-1]["range"] == f"bytes={size // 2}-{size - 1}"


def _rest(terminal: int) -> str:
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:
        pass  # the error of a terminal whose other end is closed
    return said.decode()

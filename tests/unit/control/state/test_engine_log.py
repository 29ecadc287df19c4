"""What an engine said: asked of a `journalctl` that answers as the test wants, and the line that tells the cause."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmd.control.state import engine_log
from mmd.control.state.engine_log import Ended, last_lines, units_that_failed
from mmd.journal import JournalHandler


@pytest.fixture(autouse=True)
def waiting_threads_end() -> Iterator[None]:
    """Python 3.11 waits for a child in a thread, which outlives its own news by a moment."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join(10)


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script to fill in; it is `journalctl` on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "journalctl"


def script(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


async def test_last_lines_asks_for_the_model_and_the_time(journalctl: Path) -> None:
    script(journalctl, 'for word; do echo "$word"; done')
    asked = await last_lines("qwen3", since_us=1_700_000_000_250_000, count=5)
    assert {"--identifier=qwen3", "--since=@1700000000.250000", "--lines=5", "--output=cat", "--quiet"} <= set(asked)


async def test_last_lines_skips_empty_lines_and_replaces_bad_bytes(journalctl: Path) -> None:
    script(journalctl, "printf 'one\\n\\n  \\ntw\\377o\\n'; echo noise >&2; exit 1")
    assert await last_lines("a", since_us=0) == ["tw�o", "one"]  # it is asked for the newest first


async def test_last_lines_without_journalctl_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await last_lines("a", since_us=0) == []


@pytest.mark.parametrize(("status", "known"), [(0, []), (1, None)])
async def test_forbidden_journal_differs_from_an_empty_one(
    status: int, known: list[Ended] | None, journalctl: Path
) -> None:
    script(journalctl, f"exit {status}")
    assert await units_that_failed("/user.slice", since_us=0) == known


async def test_last_lines_of_a_journal_that_hangs_are_none(journalctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_log, "_JOURNALCTL_TIMEOUT_SECONDS", 0.2)
    script(journalctl, f"echo $$ > {journalctl.parent}/pid; exec sleep 1000")
    assert await last_lines("a", since_us=0) == []
    assert not runs(journalctl.parent / "pid")


async def test_last_lines_that_are_no_longer_wanted_leave_no_process(journalctl: Path) -> None:
    """The progress line is cancelled when the model is up, often while it asks the journal."""
    pid, fifo = journalctl.parent / "pid", journalctl.parent / "began"
    os.mkfifo(fifo)
    script(journalctl, f"echo $$ > {pid}; echo > {fifo}; exec sleep 1000")
    asking = asyncio.create_task(last_lines("a", since_us=0))
    await asyncio.to_thread(fifo.read_text)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not runs(pid)


def runs(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    os.kill(pid, 9)  # whatever the test says about it, it must not stay
    return True


def test_own_lines_carry_the_model_and_the_unit(tmp_path: Path) -> None:
    """`journalctl --user MMD_MODEL=a` finds what was decided about it."""
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(10)
        handler = JournalHandler(path)
        log = logging.Logger("mmd.test")  # noqa: LOG001 not a child of the root logger
        log.addHandler(handler)
        log.warning("%s goes\nand comes", "a", extra={"MMD_MODEL": "a", "MMD_UNIT": "mmd-model@a.service"})
        received = receiver.recv(4096)
        handler.close()
    assert b"MESSAGE\n" + len("a goes\nand comes").to_bytes(8, "little") + b"a goes\nand comes\n" in received
    assert b"MMD_MODEL=a\n" in received
    assert b"MMD_UNIT=mmd-model@a.service\n" in received
    assert b"PRIORITY=4\n" in received

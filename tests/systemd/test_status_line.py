"""The status lines of contrib, over a real gateway and its units."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.systemd.world import REPOSITORY, World, run_mmd

_SCRIPT = REPOSITORY / "contrib/status-line/mmd-status-line"
_PATIENCE_SECONDS = 30.0


class Bar:
    """Yield the lines that a waybar would receive."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout
        self._unread = b""

    def line(self) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                assert selector.select(_PATIENCE_SECONDS), "the bar is told nothing"
                self._unread += os.read(self._pipe.fileno(), 1 << 16)
        line, _, self._unread = self._unread.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        lines = [self.line()]
        while not condition(lines[-1]):
            lines.append(self.line())
        return lines


@contextmanager
def _waybar() -> Iterator[Bar]:
    process = subprocess.Popen([_SCRIPT, "waybar"], stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield Bar(process)
    finally:
        os.killpg(process.pid, 9)  # like waybar, or its curl would continue
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def url(world: World, installed: str) -> str:
    """With a running gateway."""
    assert httpx.get(f"{installed}/health").status_code == 200
    return installed


def _tmux() -> str:
    done = subprocess.run([_SCRIPT, "tmux"], capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_tmux_shows_the_active_and_the_failed_model(world: World, url: str) -> None:
    world.add("a")
    world.add("b", exit_at_once={"status": 1, "stderr": "error: no"})
    assert _tmux() == "no model\n"
    assert run_mmd("activate", "b").returncode == 6
    assert _tmux() == "b failed\n"
    assert run_mmd("activate", "a").returncode == 0
    assert _tmux() == "a\n"


def test_bar_follows_a_model_from_its_start_to_its_end(world: World, url: str) -> None:
    world.add("a", load_seconds=1.0)
    with _waybar() as bar:
        assert bar.line()["class"] == "off"
        told = bar.line()
        assert (told["text"], told["class"], told["alt"]) == ("no model", "idle", "idle")
        assert "RAM: " in told["tooltip"]
        assert run_mmd("activate", "a").returncode == 0
        lines = bar.until(lambda told: told["text"] == "a")
        assert ("a… +1", "starting") in [(told["text"], told["class"]) for told in lines]  # mmd activate waits for it
        assert lines[-1]["class"] == "active" and "a answers" in lines[-1]["tooltip"]
        assert run_mmd("stop", "a").returncode == 0
        assert bar.until(lambda told: told["class"] == "idle")[-1]["text"] == "no model"


def test_bar_shows_a_failure_and_its_reason(world: World, url: str) -> None:
    world.add("a", exit_at_once={"status": 1, "stderr": "error: no"})
    with _waybar() as bar:
        assert run_mmd("activate", "a").returncode == 6
        (*_, told) = bar.until(lambda told: told["text"] == "a failed")
        assert told["class"] == "failed"
        assert "a failed: the engine ended with status 1" in told["tooltip"]


def test_line_starts_no_gateway_and_hides(world: World, installed: str) -> None:
    assert _tmux() == ""
    with _waybar() as bar:
        assert bar.line() == {"text": "", "alt": "off", "class": "off", "tooltip": ""}
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"


def test_bar_comes_back_after_the_gateway(world: World, url: str) -> None:
    with _waybar() as bar:
        bar.until(lambda told: told["class"] == "idle")
        world.manager.systemctl("restart", "mmd.service")
        bar.until(lambda told: told["class"] == "off")
        bar.until(lambda told: told["class"] == "idle")


@pytest.mark.parametrize("words", [(), ("xmobar",)])
def test_what_it_cannot_do_it_says(words: tuple[str, ...]) -> None:
    done = subprocess.run([_SCRIPT, *words], capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (2, "usage: mmd-status-line tmux|waybar\n")


def test_tmux_reads_its_lines(tmp_path: Path) -> None:
    """Run tmux in a server of its own, and kill that at the end."""
    read = ["source-file", str(_SCRIPT.parent / "tmux.conf"), ";", "show-options", "-gv", "status-right"]
    done = subprocess.run(
        ["tmux", "-S", str(tmp_path / "s"), "-f", "/dev/null", "new-session", "-d", ";", *read, ";", "kill-server"],
        env=os.environ | {"TERM": "xterm"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_SECONDS,
    )
    assert "#(~/.local/bin/mmd-status-line tmux)" in done.stdout, done.stderr

"""`mmd doctor` from outside: a line for each check, JSON, and its exit status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from mmd.cli.doctor import _print
from mmd.control.doctor.checks import CHECKS
from mmd.control.doctor.diagnosis import CheckResult, Level
from mmd.paths import config_file
from tests.fakes.hub import TOKEN, fake_hub

ROOT = Path(__file__).parents[3]


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmd", "doctor", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, CheckResult]:
    """Return the first result of each check."""
    records = [CheckResult(**record | {"state": Level(record["state"])}) for record in json.loads(done.stdout)]
    return {finding.check: finding for finding in reversed(records)}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Run without a user manager."""
    home = tmp_path_factory.mktemp("home")
    nowhere = {f"XDG_{name}": "" for name in ("DATA_HOME", "CONFIG_HOME", "CACHE_HOME", "STATE_HOME")}
    runtime = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "none"), "DBUS_SESSION_BUS_ADDRESS": ""}
    return doctor("--offline", "--json", **nowhere | runtime)


def test_without_a_manager_that_is_the_first_failure(offline: subprocess.CompletedProcess[str]) -> None:
    assert offline.returncode == 1
    assert offline.stderr == ""
    found = findings(offline)
    assert list(found)  # in the order of the table
    first = next(finding for finding in map(found.get, (check.name for check in CHECKS)) if finding)
    assert (first.check, first.state) == ("user manager", Level.FAILED)
    assert first.hint


def test_what_depends_on_it_is_not_looked_at(offline: subprocess.CompletedProcess[str]) -> None:
    found = findings(offline)
    skipped = {finding.check for finding in found.values() if finding.state is Level.SKIPPED}
    assert skipped == {"control groups", "residents", "units", "gateway", "sockets", "failures", "hub"}


def test_all_else_is(offline: subprocess.CompletedProcess[str]) -> None:
    found = findings(offline)
    assert found["settings"].state is found["registry"].state is Level.OK
    assert {"RAM", "disk", "engines", "models", "NVIDIA driver", "folders"} <= found.keys()


def test_models_that_are_to_stay_on_the_gpu_need_no_lock() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[gateway]\nsuspend = "leave"\n')
    found = findings(doctor("--offline", "--json"))["suspend"]
    assert (found.state, found.message) == (Level.OK, 'models stay on the GPU: mmd.toml has suspend = "leave"')


def test_damaged_settings_are_the_cause_of_what_needs_them() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text("[gateway\n")
    done = doctor("--offline")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("FAIL  settings") and "is not TOML" in line]
    skipped = "-     suspend, engines, use of the GPU, models: skipped, see: settings"
    assert [line for line in lines if line.startswith(skipped)]
    assert done.stderr.splitlines()[-1].startswith("2 failed")


def test_the_hub_answers() -> None:
    with fake_hub() as hub:
        found = findings(doctor("--json", HF_ENDPOINT=hub.url))["hub"]
        assert (found.state, found.message) == (
            Level.OK,
            f"{hub.url} answers; no token (only gated models need one)",
        )
        found = findings(doctor("--json", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN))["hub"]
        assert (found.state, found.message) == (Level.OK, f"{hub.url} answers; token accepted")
        found = findings(doctor("--json", HF_ENDPOINT=hub.url, HF_TOKEN="hf_expired"))["hub"]
        assert found.state is Level.WARNING
        assert found.message.startswith("the hub rejects this token")
        assert found.hint.startswith("unset HF_TOKEN")


def test_a_hub_that_hangs_holds_up_nothing() -> None:
    """The kernel accepts connections, but no program answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = findings(doctor("--json", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert (found["hub"].state, found["hub"].message) == (Level.WARNING, "the hub did not answer within 3 s")
    assert found["engines"].state is not Level.SKIPPED


def test_a_hub_that_is_switched_off() -> None:
    found = findings(doctor("--json", HF_HUB_OFFLINE="1"))["hub"]
    assert (found.state, found.message) == (Level.WARNING, "HF_HUB_OFFLINE is set, so the hub is not used")


# -- output


def finding(check: str, state: Level, message: str = "it is so", hint: str = "") -> CheckResult:
    return CheckResult(check, state, message, hint)


@pytest.mark.parametrize(
    ("found", "out", "says"),
    [
        ([finding("disk", Level.OK)], "ok    disk  it is so\n", "All checks passed."),
        (
            [finding("disk", Level.WARNING, hint="mmd disk")],
            "warn  disk  it is so\n      → mmd disk\n",
            "Nothing is broken; 1 warning.",
        ),
        (
            [
                finding("a", Level.FAILED, hint="x"),
                finding("a", Level.FAILED, hint="y"),
                finding("b", Level.WARNING, hint="z"),
            ],
            "FAIL  a  it is so\n      → x\nFAIL     it is so\n      → y\nwarn  b  it is so\n      → z\n",
            "2 failed, 1 warning. Start with the first failed line.",
        ),
        (
            [
                finding("a", Level.OK),
                *(finding(name, Level.SKIPPED, "skipped, see: x") for name in "bc"),
            ],
            "ok    a  it is so\n-     b, c: skipped, see: x\n",
            "All checks passed.",
        ),
    ],
)
def test_lines(found: Sequence[CheckResult], out: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    _print(found)
    shown = capsys.readouterr()
    assert shown.out == out
    assert shown.err.strip() == says


def test_messages_wrap_on_a_terminal_and_commands_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _print([finding("disk", Level.FAILED, "one two three four five six seven eight", "x" * 60)])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert lines[0] == "FAIL  disk  one two three four five six"
    assert lines[1] == "            seven eight"
    assert lines[2] == f"      → {'x' * 60}"

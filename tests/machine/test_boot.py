"""A machine that is switched off and on again comes up with its default model, before anyone logs in.

Run by `make test-boot`: MMD_TEST_SUITES names the Debian releases, as in "bookworm trixie".
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import USER, Machine, machine
from tests.tiny_models import tiny_gguf

SUITES = os.environ.get("MMD_TEST_SUITES", "").split()
CHECKOUT = Path(__file__).parents[2]
LISTEN = "127.0.0.1:18731"
ANSWER_SECONDS = 60
MMD = "~/venv/bin/mmd"

pytestmark = [pytest.mark.timeout(900), pytest.mark.machine]


@pytest.fixture(scope="module", params=SUITES or [pytest.param("none", marks=pytest.mark.skip("make test-boot"))])
def booted(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine on which a user has installed mmd from this checkout."""
    folder = Path("/var/tmp") / f"mmd-machine-{os.getpid()}"
    folder.mkdir()
    try:
        with machine(request.param, folder) as made:
            home = made.root / "home" / USER
            _copy_checkout(home / "mmd")
            for name in ("a", "b"):
                tiny_gguf(home / f"{name}.gguf", name=name)
            config = home / ".config/mmd/mmd.toml"
            config.parent.mkdir(parents=True)
            config.write_text(f'[gateway]\nlisten = "{LISTEN}"  # the network is the host\'s\n')
            made.run(f"chown -R {USER}:{USER} /home/{USER}", user="root")
            made.run("python3 -m venv venv && venv/bin/pip install -q -c mmd/constraints.txt './mmd[embedded]'")
            yield made
    finally:
        (folder / "console").unlink(missing_ok=True)
        folder.rmdir()


def test_default_model_answers_after_power_was_cut_and_nobody_logged_in(booted: Machine) -> None:
    for name in ("a", "b"):
        booted.run(f"{MMD} add {name}.gguf")
    booted.run(f"{MMD} install")
    booted.run(f"{MMD} default b")
    booted.cut_power()
    booted.boot()
    answer = _ask_until_answered()
    assert answer["model"] == "b"
    assert json.loads(booted.run(f"{MMD} status --json"))["active"] == "b"
    assert "b may use the GPU" in booted.run("systemctl --user list-units 'mmd-resident@*' --no-pager")
    assert _boot_ended(booted) == "inactive"
    journal = booted.run("journalctl --user -u mmd-boot.service -b -o cat --no-pager")
    assert "b is active" in journal


def test_broken_default_is_told_and_the_others_answer(booted: Machine) -> None:
    booted.run("mv b.gguf away.gguf")
    booted.cut_power()
    booted.boot()
    assert _boot_ended(booted) == "failed"
    # What one is told to look at first. It exits with 3 where a unit has failed.
    told = booted.attempt("systemctl --user status mmd-boot.service --no-pager --full").stdout
    assert "b is registered, but its file is gone: /home/ada/b.gguf" in told
    assert "→ mmd remove b" in told
    assert _ask_until_answered(model="a")["model"] == "a"


def _copy_checkout(target: Path) -> None:
    target.mkdir(parents=True)
    names = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    pack = subprocess.run(
        ["tar", "-C", str(CHECKOUT), "--null", "--files-from=-", "-c"], input=names, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-C", str(target), "-x"], input=pack, check=True)


def _boot_ended(booted: Machine) -> str:
    """How mmd-boot.service ended, once it has."""
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        state = booted.attempt("systemctl --user is-active mmd-boot.service").stdout.strip()
        if state in ("inactive", "failed"):
            return state
        time.sleep(0.2)
    raise AssertionError("the boot did not end")


def _ask_until_answered(**model: str) -> dict[str, object]:
    """An answer from the model; from whoever is the default where the request names none."""
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4} | model)
    command = ["curl", "-sf", "--max-time", "10", f"http://{LISTEN}/v1/chat/completions", "-d", body]
    command += ["-H", "content-type: application/json"]
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0:
            answer: dict[str, object] = json.loads(done.stdout)
            return answer
        time.sleep(0.2)
    raise AssertionError("no model answered after the boot")

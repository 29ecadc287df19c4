"""logind itself suspends the machine: models leave the GPU before that, and are restored after.

A container has no /sys/power of its own; with files in its place logind and systemd-sleep do everything that they do on
a real machine, freezing the users' sessions too, except for the last step in the kernel. Run by `make test-boot`:
MMD_TEST_SUITES names the Debian releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.chat import ask_until_answered
from tests.machine.machine import SUITES, USER, Machine, new_machine, wait_for
from tests.machine.package import PLACE, put_package
from tests.tiny_models import tiny_gguf

FAKES = Path(__file__).parents[1] / "fakes"
COMES_BACK_SECONDS = 60
ENGINE = f'#!/bin/sh\nexec /usr/bin/python3 -I -S /home/{USER}/tests/fakes/engine.py "$@"\n'
POWER = """
    mount -o remount,rw /sys && mkdir -p /sys/power && mount -t tmpfs tmpfs /sys/power
    echo 'freeze mem disk' >/sys/power/state
    echo '[deep]' >/sys/power/mem_sleep
"""

pytestmark = [pytest.mark.timeout(600), pytest.mark.machine]


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, nvml_folder: Path) -> Iterator[Machine]:
    """A machine with a GPU, an engine that uses it, a model and mmd."""
    with new_machine(request.param) as made:
        tiny_gguf(made.home / "a.gguf", name="a")
        _put_engine(made)
        _put_gpu(made, nvml_folder)
        put_package(made)
        made.fetch(PLACE, "polkitd")
        made.prepare(f"chown -R {USER}:{USER} /home/{USER}")
        made.boot()
        made.run(POWER, user="root")
        # polkit is recommended; a later test installs it.
        made.run(f"apt-get install --yes {PLACE} polkitd- && loginctl enable-linger {USER}", user="root")
        wait_for(lambda: made.attempt("systemctl --user is-active default.target").returncode == 0, 60, "its manager")
        made.run("mmd add a.gguf && mmd install")
        yield made


def test_without_polkit_models_leave_as_soon_as_they_can(machine: Machine) -> None:
    ask_until_answered(machine, model="a")
    _suspend(machine)
    assert [event["outcome"] for event in _swaps(machine)] == ["resident", "away", "resident"]
    refused = machine.run("journalctl --user -b -o cat SYSLOG_IDENTIFIER=mmd --grep='refuses to delay'").splitlines()
    assert len(refused) == 1
    assert refused[0].endswith("sudo apt install polkitd")


def test_with_polkit_the_machine_waits_for_them(machine: Machine) -> None:
    machine.run("apt-get install --yes polkitd", user="root")
    machine.run("systemctl --user restart mmd.service")
    wait_for(lambda: _lock(machine) is not None, COMES_BACK_SECONDS, "the gateway has a lock")
    _suspend(machine)
    put_away, back = _swaps(machine)[-2:]
    assert (put_away["outcome"], put_away["why"]) == ("away", "the machine suspends")
    assert (back["outcome"], back["why"].partition(":")[0]) == ("resident", "the machine is awake again")
    slept = _last(machine, "(Entering|Performing) sleep")
    assert _last(machine, "a released the GPU") < slept < _last(machine, "a is resident")
    assert _lock(machine) is not None
    assert ask_until_answered(machine)["model"] == "a"


def _put_engine(machine: Machine) -> None:
    for name in ("engine.py", "http.py", "sleep.py", "vram.py"):
        file = machine.home / "tests/fakes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((FAKES / name).read_bytes())
    program = machine.home / "llama-server"
    program.write_text(ENGINE)
    program.chmod(0o755)
    settings = machine.home / ".config/mmd/mmd.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[engines]\nllama-server = "/home/{USER}/llama-server"\n')


def _put_gpu(machine: Machine, nvml_folder: Path) -> None:
    """Set variables of what the user manager starts."""
    folder = machine.home / "nvml"
    folder.mkdir()
    (folder / "state").write_text("0\n")
    (folder / "libnvidia-ml.so.1").write_bytes((nvml_folder / "libnvidia-ml.so.1").read_bytes())
    environment = machine.home / ".config/environment.d/gpu.conf"
    environment.parent.mkdir(parents=True)
    inside = f"/home/{USER}/nvml"
    environment.write_text(f"LD_LIBRARY_PATH={inside}\nMMD_FAKE_NVML={inside}/state\n")


def _suspend(machine: Machine) -> None:
    """Suspend, resume and wait until the model is back."""
    before = len(_swaps(machine))
    machine.run("systemctl suspend", user="root")
    wait_for(lambda: len(_swaps(machine)) == before + 2, COMES_BACK_SECONDS, "the model has left and come back")


def _swaps(machine: Machine) -> list[dict[str, Any]]:
    swaps: list[dict[str, Any]] = json.loads(machine.run("mmd events --json"))
    return swaps


def _lock(machine: Machine) -> str | None:
    """Return the line about mmd's lock in logind's list."""
    listed = machine.run("systemd-inhibit --list --no-legend", user="root")
    return next((line for line in listed.splitlines() if re.match(rf"mmd +\d+ +{USER} .* sleep .* delay", line)), None)


def _last(machine: Machine, said: str) -> float:
    """Return when this was logged last."""
    lines = machine.run(f"journalctl -b -o short-unix --grep='{said}'", user="root").splitlines()
    return float(lines[-1].split()[0])

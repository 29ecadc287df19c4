"""The life of mmd's Debian package on a machine: installed, booted with, upgraded while it works, removed, purged.

Run by `make test-boot`: MMD_TEST_SUITES names the Debian releases, as in "bookworm trixie".
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.machine.chat import ask_until_answered, gateway_version, streaming
from tests.machine.machine import SUITES, USER, Machine, new_machine, wait_for
from tests.machine.package import NEWER, NEWER_PLACE, PLACE, make_newer, put_package
from tests.tiny_models import tiny_gguf

ENDED_SECONDS = 60
UPGRADE_SECONDS = 120
# Few tokens, because a stopping gateway waits half a minute for them, and a long text for each: 15 kB.
LONG_ANSWER = {
    "max_tokens": 340,
    "ignore_eos": True,
    "logprobs": True,
    "top_logprobs": 300,
    "stream_options": {"include_usage": True},
}
# More than the kernel buffers for a client that does not read, mostly tcp_wmem of tcp(7): the gateway cannot finish.
UNDER_WAY_BYTES = 4_600_000
ENGINES = {"forky": "llama-server"}  # Debian's, recommended by the package; elsewhere mmd brings its own

pytestmark = [pytest.mark.timeout(600), pytest.mark.machine]


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine with two models in the user's home and the package file."""
    with new_machine(request.param) as made:
        for name in ("a", "b"):
            tiny_gguf(made.home / f"{name}.gguf", name=name)
        _have_one_thread(made)
        put_package(made)
        made.fetch(PLACE, "polkitd")
        made.boot()
        yield made


def test_package_installs_and_starts_nothing(machine: Machine) -> None:
    # polkit is recommended; a later test installs mmd with it.
    machine.run(f"apt-get install --yes {PLACE} polkitd-", user="root")
    assert machine.run("mmd --version").startswith("mmd ")
    assert machine.attempt("systemctl --user is-enabled mmd.socket").stdout == "disabled\n"
    assert not _processes(machine)


def test_default_model_answers_when_it_is_set_up(machine: Machine) -> None:
    machine.run("mmd add a.gguf && mmd add b.gguf")
    machine.run("mmd install")
    machine.run("mmd default b && mmd activate b")
    assert ask_until_answered(machine)["model"] == "b"


def test_engine_is_debians_own_where_there_is_one(machine: Machine) -> None:
    wanted = ENGINES.get(machine.suite, "embedded")
    assert json.loads(machine.run("mmd show b --json"))["launch"]["engine"] == wanted
    command = machine.run("systemctl --user show -P ExecStart mmd-model@b.service")
    assert ("/usr/bin/llama-server " if wanted == "llama-server" else "/usr/lib/mmd/bin/python3 ") in command


def test_root_makes_the_user_linger_as_install_tells(machine: Machine) -> None:
    by, command = _lingering_told(machine)
    assert by == "root"  # without polkit only root may
    assert machine.attempt(command).returncode != 0
    machine.run(command, user=by)
    assert "linger" not in machine.attempt("mmd install").stderr


def test_user_lingers_by_the_command_that_install_tells(machine: Machine) -> None:
    machine.run("apt-get install --yes polkitd && loginctl disable-linger ada", user="root")
    by, command = _lingering_told(machine)
    machine.run(command, user=by)
    assert by == "ada"
    assert "linger" not in machine.attempt("mmd install").stderr


def test_default_model_answers_after_power_loss_without_login(machine: Machine) -> None:
    machine.cut_power()
    machine.boot()
    assert ask_until_answered(machine)["model"] == "b"
    assert json.loads(machine.run("mmd status --json"))["active"] == "b"
    tokens = machine.run("systemctl --user list-units 'mmd-resident@*' --no-pager")
    assert re.search(r"b has \d+ MiB of ram", tokens), tokens
    assert _boot_ended(machine) == "inactive"
    journal = machine.run("journalctl --user -u mmd-boot.service -b -o cat --no-pager")
    assert "b is active" in journal


def test_default_model_answers_after_an_orderly_reboot(machine: Machine) -> None:
    machine.reboot()
    assert ask_until_answered(machine)["model"] == "b"
    assert _boot_ended(machine) == "inactive"


def test_what_was_resident_answers_after_reboot_and_power_loss(machine: Machine) -> None:
    machine.run("mmd default --last && mmd activate a")
    assert _resident(machine) == {"a", "b"}
    machine.reboot()
    assert _boot_ended(machine) == "inactive"
    assert _resident(machine) == {"a", "b"}
    machine.cut_power()
    machine.boot()
    assert _boot_ended(machine) == "inactive"
    assert _resident(machine) == {"a", "b"}
    machine.run("mmd stop a && mmd default b")


def test_doctor_finds_nothing_wrong(machine: Machine) -> None:
    findings = json.loads(machine.run("mmd doctor --offline --json"))
    assert [finding for finding in findings if finding["state"] == "failed"] == []


def test_broken_default_is_told_and_the_others_answer(machine: Machine) -> None:
    machine.run("mv b.gguf away.gguf")
    machine.reboot()
    assert _boot_ended(machine) == "failed"
    # The first command that the documents advise. It exits with 3 if a unit has failed.
    told = machine.attempt("systemctl --user status mmd-boot.service --no-pager --full").stdout
    assert "b is registered, but its file is missing: /home/ada/b.gguf" in told
    assert "→ mmd remove b" in told
    examined = machine.attempt("mmd doctor --offline")
    assert (examined.returncode, "/home/ada/b.gguf" in examined.stdout) == (1, True), examined.stdout
    assert ask_until_answered(machine, model="a")["model"] == "a"
    machine.run("mv away.gguf b.gguf")


def test_upgrade_keeps_the_model_and_the_running_response(machine: Machine) -> None:
    make_newer(machine)
    machine.run("mmd activate b")
    model, gateway = _main_pid(machine, "mmd-model@b.service"), _main_pid(machine, "mmd.service")
    with streaming(machine, model="b", **LONG_ANSWER) as answer:
        assert answer.readline().startswith(b"data: ")
        with _upgrading(machine) as apt:
            wait_for(
                lambda: apt.poll() is not None or not _is_up(machine, "mmd.service", gateway),
                UPGRADE_SECONDS,
                "the upgrade has come to the gateway, or has ended",
            )
            rest = answer.read()
            said, _ = apt.communicate(timeout=UPGRADE_SECONDS)
    assert apt.returncode == 0, said
    assert rest.endswith(b"data: [DONE]\n\n"), rest[-300:]
    assert b'"completion_tokens":340,' in rest[-1000:]
    assert len(rest) > UNDER_WAY_BYTES
    assert _main_pid(machine, "mmd-model@b.service") == model
    wait_for(lambda: gateway_version(machine) == NEWER, ENDED_SECONDS, "the gateway is the newer one")


def test_removal_ends_all_that_runs_and_keeps_what_is_the_users(machine: Machine) -> None:
    assert ask_until_answered(machine)["model"] == "b"
    machine.run("apt-get remove --yes mmd", user="root")
    assert not _processes(machine)
    assert machine.attempt("command -v mmd").returncode != 0
    assert machine.run("systemctl --user list-units --state=active,activating --plain --no-legend 'mmd*'") == ""
    assert (machine.home / ".local/share/mmd/models.json").exists()


def test_purge_leaves_nothing_of_its_name(machine: Machine) -> None:
    machine.run("apt-get purge --yes mmd", user="root")
    # Files of other packages come and go with the dependencies; every file of mmd, and every file that it may have
    # made, has its name.
    kept = "-path /home -o -path /srv -o -path /var/cache/apt -o -path /var/log"
    assert machine.run(rf"find / -xdev \( {kept} \) -prune -o -name '*mmd*' -print", user="root") == ""


def test_package_that_comes_back_finds_all_as_it_was(machine: Machine) -> None:
    machine.run(f"apt-get install --yes {PLACE}", user="root")
    machine.run("mmd activate a")
    machine.reboot()
    assert ask_until_answered(machine)["model"] == "b"


def _have_one_thread(machine: Machine) -> None:
    """For the engines: threads that wait for each other at every step make no progress on a busy CPU."""
    folder = ".config/environment.d"
    machine.prepare(f"su - {USER} -c 'mkdir -p {folder} && echo OMP_THREAD_LIMIT=1 > {folder}/one-thread.conf'")


def _lingering_told(machine: Machine) -> tuple[str, str]:
    """Return who must enable lingering, and with which command, as `mmd install` prints it."""
    said = machine.attempt("mmd install").stderr
    told = re.search(r"(sudo )?(loginctl enable-linger.*)", said)
    assert told, said
    return "root" if told[1] else "ada", told[2]


def _upgrading(machine: Machine) -> subprocess.Popen[str]:
    command = machine.inside(f"apt-get -qq install --yes {NEWER_PLACE}", user="root")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _main_pid(machine: Machine, unit: str) -> str:
    """Return the main PID, or 0 if it does not run."""
    return machine.run(f"systemctl --user show -P MainPID {unit}").strip()


def _is_up(machine: Machine, unit: str, main_pid: str) -> bool:
    """Return whether it runs, and has not been told to stop."""
    state = machine.run(f"systemctl --user show -P MainPID -P ActiveState {unit}")
    return state.split() == [main_pid, "active"]


def _boot_ended(machine: Machine) -> str:
    """Wait for the end of mmd-boot.service and return its result."""

    def state() -> str:
        return machine.attempt("systemctl --user is-active mmd-boot.service").stdout.strip()

    wait_for(lambda: state() in ("inactive", "failed"), ENDED_SECONDS, "mmd-boot.service has ended")
    return state()


def _resident(machine: Machine) -> set[str]:
    return {one["id"] for one in json.loads(machine.run("mmd status --json"))["resident"]}


def _processes(machine: Machine) -> str:
    """Return the processes of mmd and its engines: each has a folder called mmd on its command line."""
    return machine.attempt("grep -lsa '/[m]md' /proc/[0-9]*/cmdline", user="root").stdout

"""`mmd doctor` with a real user manager; each test breaks one thing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from mmd.control.doctor.diagnosis import CheckResult, Level
from mmd.control.state.engine_log import units_that_failed
from mmd.paths import config_file, engine_socket
from mmd.registry.store import Registry
from mmd.units.user_files import unit_file
from tests.systemd.conftest import free_port
from tests.systemd.world import World, run_mmd

# Run in a service with a control group that is its own to divide.
NOTE = """
import os, signal, socket
from pathlib import Path

mount = Path("/sys/fs/cgroup")
root = mount if (mount / "cgroup.controllers").exists() else mount / "unified"
here = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
scope = root / here.lstrip("/") / "init.scope"
scope.mkdir()
(scope / "cgroup.procs").write_text(str(os.getpid()))
fields = ["MESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c", "USER_UNIT=mmd-model@noted.service", "UNIT_RESULT=oom-kill"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
    journal.sendto("\\n".join([*fields, "MESSAGE=noted", ""]).encode(), "/run/systemd/journal/socket")
signal.pause()  # journald looks up the control group of a live process
"""


def findings() -> list[CheckResult]:
    done = run_mmd("doctor", "--offline", "--json")
    found = [CheckResult(**record | {"state": Level(record["state"])}) for record in json.loads(done.stdout)]
    assert done.returncode == any(finding.state is Level.FAILED for finding in found), done.stderr
    return found


def failed() -> list[CheckResult]:
    return [finding for finding in findings() if finding.state is Level.FAILED]


def only_failed(check: str) -> CheckResult:
    (finding,) = failed()
    assert finding.check == check, finding
    return finding


def checked(check: str) -> CheckResult:
    return next(finding for finding in findings() if finding.check == check)


def told(check: str, is_wanted: Callable[[CheckResult], bool]) -> CheckResult:
    """Wait up to 20 seconds for a result of the check."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for finding in findings():
            if finding.check == check and is_wanted(finding):
                return finding
    raise TimeoutError(check)


def test_nothing_fails_on_a_healthy_machine(world: World, installed: str) -> None:
    world.add("a")
    assert run_mmd("activate", "a").returncode == 0
    assert failed() == []
    assert checked("units").message.startswith("up to date and enabled")
    assert checked("gateway").message == f"listening on {installed.removeprefix('http://')}"


def test_missing_units_are_a_warning(world: World) -> None:
    assert failed() == []
    assert (checked("units").state, checked("units").hint) == (Level.WARNING, "mmd install")


def test_doctor_starts_no_gateway(world: World, installed: str) -> None:
    """A connection to its socket would start it."""
    findings()
    assert world.manager.systemctl("is-active", "mmd.service").strip() == "inactive"
    urlopen(f"{installed}/health", timeout=20).close()
    assert checked("gateway").state is Level.OK


def test_hung_gateway(world: World, installed: str) -> None:
    urlopen(f"{installed}/health", timeout=20).close()
    pid = int(world.manager.systemctl("show", "--property=MainPID", "--value", "mmd.service"))
    os.kill(pid, signal.SIGSTOP)
    try:
        finding = only_failed("gateway")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert finding.message == "the gateway did not answer within 5 s"
    assert finding.hint.startswith("systemctl --user restart mmd.service")


def test_gateway_without_its_unix_socket(world: World, installed: str) -> None:
    world.manager.systemctl("stop", "mmd-local.socket")
    urlopen(f"{installed}/health", timeout=20).close()
    assert failed() == []


def test_gateway_that_does_not_start(world: World, installed: str) -> None:
    """systemd restarts it forever, so it is never `failed`."""
    drop_in = unit_file("mmd.service").with_name("mmd.service.d") / "90-broken.conf"
    drop_in.write_text("[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/false\n")
    world.manager.systemctl("daemon-reload")
    host, port = installed.removeprefix("http://").split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=20):
            finding = told("gateway", lambda one: one.state is Level.FAILED)
    finally:
        drop_in.unlink()
        world.manager.systemctl("daemon-reload")
    assert finding.message.startswith("the gateway does not start: exit-code, ")
    assert finding.hint == "journalctl --user -u mmd.service -n 20"


def test_port_in_use(world: World, installed: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        text = config_file().read_text()
        config_file().write_text(re.sub(r'^listen = "[^"]*"', f'listen = "{listen}"', text, flags=re.MULTILINE))
        finding = only_failed("gateway")
        config_file().write_text(text)
    assert finding.message.startswith(f"{listen} is in use by ")
    assert f"(pid {os.getpid()}, " in finding.message
    assert finding.hint.startswith(f"kill {os.getpid()} && mmd install")


def test_stopped_socket_unit(world: World, installed: str) -> None:
    world.manager.systemctl("stop", "mmd.socket")
    finding = only_failed("gateway")
    assert "mmd.socket does not listen" in finding.message
    assert run_mmd(*finding.hint.partition("   #")[0].split()[1:]).returncode == 0
    assert failed() == []


def test_removed_engine_socket(world: World) -> None:
    world.add("a")
    assert run_mmd("activate", "a").returncode == 0
    engine_socket("a").unlink()
    assert only_failed("sockets").message.startswith("the engine of a runs, but its socket file is gone")
    assert run_mmd("stop", "a").returncode == run_mmd("activate", "a").returncode == 0
    assert failed() == []


def test_model_that_did_not_start(world: World) -> None:
    world.add("broken", exit_at_once={"status": 1, "stderr": "error: feet of clay"})
    assert run_mmd("activate", "broken").returncode == 6
    finding = only_failed("failures")
    assert "broken: the engine ended with status 1: error: feet of clay" in finding.message
    assert finding.hint == "mmd logs broken   # then: mmd activate broken"


def test_missing_model_file(world: World) -> None:
    world.add("a", "b")
    Path(Registry().get("a").path).unlink()
    assert only_failed("models").message == f"a: missing: {Registry().get('a').path}"


def test_damaged_registry_is_reported_once(world: World) -> None:
    world.add("a")
    file = Registry().file
    file.write_text(file.read_text() + "x = [")
    only_failed("registry")
    assert checked("models").message == "skipped, see: registry"
    assert list(file.parent.glob("models.json.damaged-*")) == []


def test_missing_engine_named_in_mmd_toml(world: World) -> None:
    world.settings('[engines]\nllama-server = "/nowhere/llama-server"\n')
    finding = only_failed("engines")
    config_file().unlink()
    assert "/nowhere/llama-server" in finding.message


def start_noting(service: str) -> None:
    command = ["systemd-run", "--user", "--quiet", f"--unit={service}", "--property=Delegate=yes"]
    subprocess.run([*command, sys.executable, "-c", NOTE], check=True, timeout=20)


async def test_failures_in_the_journal_are_found(world: World) -> None:
    """The journal trusts lines from a control group named init.scope; the test makes one and logs from it."""
    start_noting("mmd-noted.service")
    group = world.manager.systemctl("show", "--property=ControlGroup", "--value", "mmd-noted.service").strip()
    async with asyncio.timeout(20):
        while not (found := await units_that_failed(group, since_us=0)):  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.05)
    assert [(ended.unit, ended.result) for ended in found] == [("mmd-model@noted.service", "oom-kill")]
    assert await units_that_failed(group, since_us=found[0].at_us + 1) == []

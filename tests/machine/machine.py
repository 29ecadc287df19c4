"""A whole Debian machine for a test: its own systemd as PID 1, logind, journal, users and loopback, in systemd-nspawn.

It needs root, debootstrap and systemd-container. Once booted it has no network, so that its ports are its own: packages
to install are fetched before.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import cgroups
from tests.machine import debian

SUITES = tuple(os.environ.get("MMD_TEST_SUITES", "").split()) or (
    pytest.param("none", marks=pytest.mark.skip("make test-boot")),
)
USER = "ada"
BOOT_SECONDS = 90
REBOOT_SECONDS = 60
COMMAND_SECONDS = 300
ROOM_BYTES = 4 << 30
_REBOOTING = 133  # the exit status of systemd-nspawn if the machine reboots
_UP = ("running", "degraded")


@contextmanager
def new_machine(suite: str, base: Path | None = None) -> Iterator[Machine]:
    """A machine that has a user, and is not booted yet; a copy of `base`, or of a fresh Debian."""
    with TemporaryDirectory(prefix="mmd-machine-", dir=_place()) as folder:
        made = Machine(suite, Path(folder, "root"))
        try:
            debian.copy(base or debian.base(suite), made.root)
            made.prepare(f"useradd --create-home --shell=/bin/bash {USER}")
            yield made
        finally:
            made.cut_power()
            debian.remove(made.root)


class Machine:
    def __init__(self, suite: str, root: Path) -> None:
        self.suite = suite
        self.root = root
        self.failed_step: str | None = None  # the test after which its state is not what later ones expect
        self._console = root.with_suffix(".console")
        self._nspawn: subprocess.Popen[bytes] | None = None
        # If systemd has booted, systemd-nspawn gets one from it.
        self._cgroup = None if cgroups.booted_with_systemd() else cgroups.mount() / root.parent.name

    @property
    def home(self) -> Path:
        return self.root / "home" / USER

    def prepare(self, command: str, *options: str) -> None:
        """Run a shell command as root before it is booted, with the host's network; `options` are systemd-nspawn's."""
        debian.in_root(self.root, command, *options, seconds=COMMAND_SECONDS)

    def install(self, *packages: str) -> None:
        """Install packages, before it is booted."""
        debian.apt_install(self.suite, self.root, packages, seconds=COMMAND_SECONDS)

    def fetch(self, *packages: str) -> None:
        """Before it is booted: fetch these, names or paths, with their dependencies, for when it has no network."""
        debian.apt_install(self.suite, self.root, packages, "--download-only", seconds=COMMAND_SECONDS)

    def boot(self) -> None:
        command = [*debian.nspawn(self.root), *debian.apt_cache(self.suite)]
        command += ["--private-network", "--resolv-conf=off", "--boot", "--console=read-only"]
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._in_own_cgroup(command),
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._is_up, BOOT_SECONDS, f"{self.suite} has booted")

    def reboot(self) -> None:
        """Stop in order: all processes are told to stop, and waited for."""
        assert self._nspawn is not None
        # It does not return if the machine is down before it.
        self.attempt("systemctl reboot", user="root")
        status = self._nspawn.wait(REBOOT_SECONDS)
        assert status == _REBOOTING, f"systemd-nspawn ended with {status}"
        self.boot()

    def cut_power(self) -> None:
        """Cut the power: nothing is stopped in order."""
        if self._nspawn is None:
            return
        if (pid := self._init_pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        self._nspawn.wait(60)
        self._nspawn = None
        if self._cgroup is not None:
            cgroups.remove(self._cgroup)

    def run(self, command: str, *, user: str = USER, seconds: float = COMMAND_SECONDS) -> str:
        """Return the output of a command in a shell of the user; fail the test if the command fails."""
        done = self.attempt(command, user=user, seconds=seconds)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(
        self, command: str, *, user: str = USER, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        words = self.inside(command, user=user)
        return subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)

    def inside(self, command: str, *, user: str) -> list[str]:
        """Return the command line, on the host, of a shell command after a login of the user; root has no session."""
        if user == "root":
            environment = ["HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]
            words = ["env", "-i", *environment, "bash", "-c", command]
        else:
            words = ["su", "-", user, "-c", f"export XDG_RUNTIME_DIR=/run/user/$(id -u); {command}"]
        pid = self._running_init_pid()
        # logind does not talk to a process whose control group is not below the machine's.
        return cgroups.entering(cgroups.of(pid), ["nsenter", f"--target={pid}", "--all", *words])

    def on_its_network(self, *command: str) -> list[str]:
        """Return the command line of a program of the host that sees the ports of this machine."""
        return ["nsenter", f"--target={self._running_init_pid()}", "--net", *command]

    def journal(self) -> str:
        """Return the state to show if a test fails."""
        if self._nspawn is None or self._init_pid() is None:
            return self._console.read_text(errors="replace")[-4000:] if self._console.exists() else "never booted"
        return self.attempt("journalctl -b -n 50 --no-pager -o short-monotonic", user="root").stdout

    def _in_own_cgroup(self, command: list[str]) -> list[str]:
        """Two machines in one would wait at shutdown for each other's processes: two minutes, and then kill them."""
        if self._cgroup is None:
            return command
        self._cgroup.mkdir(exist_ok=True)
        return cgroups.entering(self._cgroup, command)

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"it does not boot: {self.journal()}"
        if self._init_pid() is None:
            return False
        return self.attempt("systemctl is-system-running", user="root", seconds=30).stdout.strip() in _UP

    def _running_init_pid(self) -> int:
        pid = self._init_pid()
        assert pid is not None, "the machine is off"
        return pid

    def _init_pid(self) -> int | None:
        """Return the machine's PID 1, in the host's numbering."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        pids = children.read_text().split() if children.exists() else []
        return int(pids[0]) if pids else None


def _place() -> str:
    """Use memory if there is enough: dpkg and the journal wait for the disk at every file."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM_BYTES else "/var/tmp"


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.2)

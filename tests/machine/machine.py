"""A whole Debian machine for a test: its own systemd as PID 1, logind, journal and users, in systemd-nspawn.

It needs root, debootstrap and systemd-container. The network is the host's, so every machine needs ports of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "ada"
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd",
    "python3", "python3-venv", "ca-certificates", "libgomp1", "curl",
)  # fmt: skip
BOOT_SECONDS = 90
COMMAND_SECONDS = 300


def base(suite: str) -> Path:
    """The folder of a fresh Debian of this suite; made once, in a minute, and kept in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmd-test"
    folder = cache / f"debian-{suite}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = folder.with_suffix(".partial")
        _remove(partial)
        run = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(partial)]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL, timeout=600)
        partial.rename(folder)
    return folder


@contextmanager
def machine(suite: str, folder: Path) -> Iterator[Machine]:
    """A machine that has been booted, with a user whose manager lingers."""
    root = folder / suite
    subprocess.run(["cp", "--archive", "--reflink=auto", str(base(suite)), str(root)], check=True, timeout=300)
    made = Machine(root)
    try:
        made.add_user()
        made.boot()
        yield made
    finally:
        made.cut_power()
        _remove(root)


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._nspawn: subprocess.Popen[bytes] | None = None

    def add_user(self) -> None:
        in_root = ["chroot", str(self.root)]
        subprocess.run([*in_root, "useradd", "--create-home", "--shell=/bin/bash", USER], check=True, timeout=60)
        linger = self.root / "var/lib/systemd/linger" / USER
        linger.parent.mkdir(parents=True, exist_ok=True)
        linger.touch()
        # pip's way out is the host's.
        for file in (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
            if file.exists():
                shutil.copy(file, self.root / file.relative_to("/"))

    def boot(self) -> None:
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={self.root}",
            "--boot", "--console=read-only",
        ]  # fmt: skip
        with (self.root.parent / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                command,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        _until(lambda: self._user_manager_runs(), BOOT_SECONDS, "the user manager came up")

    def cut_power(self) -> None:
        """The harder end: nothing is stopped in order. (An orderly one waits two minutes for user@.service here.)"""
        if self._nspawn is None:
            return
        if (pid := self._init_pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        self._nspawn.wait(60)
        self._nspawn = None

    def run(self, command: str, *, user: str = USER, seconds: float = COMMAND_SECONDS) -> str:
        """What a shell of the user says; fails the test where the command fails."""
        done = self.attempt(command, user=user, seconds=seconds)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(
        self, command: str, *, user: str = USER, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        pid = self._init_pid()
        assert pid is not None, "the machine is off"
        words = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "su", "-", user, "-c", command]
        environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        words[-1] = f"{_exports(environment)}export XDG_RUNTIME_DIR=/run/user/$(id -u); {command}"
        return subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)

    def _user_manager_runs(self) -> bool:
        if self._init_pid() is None:
            return False
        done = self.attempt("systemctl --user is-system-running", seconds=30)
        return done.stdout.strip() in ("running", "degraded")

    def _init_pid(self) -> int | None:
        """The machine's PID 1, as the host numbers it."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        pids = children.read_text().split() if children.exists() else []
        return int(pids[0]) if pids else None


def _exports(environment: dict[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}; " for name, value in environment.items())


def _until(condition: object, seconds: float, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.2)


def _remove(folder: Path) -> None:
    if folder.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(folder)], check=True, timeout=120)

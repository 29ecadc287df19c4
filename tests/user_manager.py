"""A systemd user manager of one's own: for the tests, the demo's machines and the benches.

On a machine whose PID 1 is not systemd (a container, a bare VM) root makes it a cgroup; on a desktop it lives in a
scope of the user's own manager. Either way it has its own runtime folder, its own bus and its own home, and nothing
of the user's is touched.

    python -m tests.user_manager COMMAND [ARG…]     runs a command under one
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmd.paths import user_runtime_dir
from tests import cgroups

_SYSTEMD = "/lib/systemd/systemd"
_JOURNALD = "/lib/systemd/systemd-journald"
_JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
_UP_SECONDS = 20.0
# Of the user's own session, read at import: each test has a home and a runtime folder of its own.
_OWN_ENVIRONMENT = dict(os.environ)
_OWN_RUNTIME = user_runtime_dir()


class UserManager:
    """A running manager; a process with this `environment` is one of its clients."""

    def __init__(self, root: Path) -> None:
        self.root = root  # short: the path of a Unix socket has at most 107 bytes
        self.runtime = root / "r"
        self.home = root / "h"
        self.environment = self._environment()
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup: Path | None = None
        self._scope: str | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.runtime.mkdir(mode=0o700, parents=True)
        self.home.mkdir(mode=0o700)
        log = (self.root / "manager.log").open("wb")
        if cgroups.booted_with_systemd():
            self._scope = f"mmd-test-{self.root.name}.scope"
            words = [
                "systemd-run",
                "--user",
                "--scope",
                "--quiet",
                f"--unit={self._scope}",
                "-p",
                "Delegate=yes",
                "env",
            ]
            words += [f"{name}={value}" for name, value in self.environment.items()]
            command = [*words, _SYSTEMD, "--user"]
            self._process = subprocess.Popen(command, env=_OWN_ENVIRONMENT, stdout=log, stderr=log)
        else:
            Path("/run/systemd/system").mkdir(parents=True, exist_ok=True)
            start_journal()
            self._cgroup = cgroups.mount() / f"mmd-{self.root.name}"
            self._cgroup.mkdir()
            enter = cgroups.entering(self._cgroup, [_SYSTEMD, "--user"])
            self._process = subprocess.Popen(
                enter, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        log.close()
        self._wait_until_up()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGRTMIN + 24)  # a user manager exits at once; its units are killed below
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._cgroup is not None:
            cgroups.remove(self._cgroup)
        if self._scope is not None:
            # By the user's own manager: our bus daemon and the engines that were not stopped are still in it.
            _own_systemctl("kill", "--signal=SIGKILL", self._scope)
            _own_systemctl("stop", self._scope)

    def systemctl(self, *words: str) -> str:
        done = subprocess.run(
            ["systemctl", "--user", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "LANG", "TERM", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "PYTHONDONTWRITEBYTECODE")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        return environment | {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.runtime}/bus",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.runtime}/no-system-bus",  # the tests do not block suspend
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
        }

    def _wait_until_up(self) -> None:
        end = time.monotonic() + _UP_SECONDS
        while time.monotonic() < end:
            if (
                self.systemctl("is-system-running").strip() in ("running", "degraded")
                and (self.runtime / "bus").exists()
            ):
                return
            assert self._process is not None
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"no user manager came up:\n{(self.root / 'manager.log').read_text()}")


@contextmanager
def user_manager() -> Iterator[UserManager]:
    # On a tmpfs, as logind's is: systemd removes a RuntimeDirectory= on no other file system.
    base = _OWN_RUNTIME if cgroups.booted_with_systemd() else Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="mm", dir=base))
    manager = UserManager(root)
    try:
        manager.start()
        yield manager
    finally:
        manager.stop()
        inaccessible = manager.runtime / "systemd/inaccessible/dir"
        if inaccessible.exists():
            inaccessible.chmod(0o700)  # systemd creates it with mode 000: only root can remove it
        shutil.rmtree(root, ignore_errors=True)


def start_journal() -> None:
    """Start a journal if the machine has none. It keeps running: it belongs to the machine, not to this manager."""
    if subprocess.run(["pgrep", "-x", "systemd-journal"], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        return
    _JOURNAL_SOCKET.parent.mkdir(parents=True, exist_ok=True)
    # In a session of its own: as our child it would be reported as a process that was never waited for.
    subprocess.run(
        ["setsid", "--fork", _JOURNALD],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    end = time.monotonic() + _UP_SECONDS
    while not _JOURNAL_SOCKET.exists():
        if time.monotonic() > end:
            raise RuntimeError("systemd-journald did not come up")
        time.sleep(0.02)


def _own_systemctl(*words: str) -> None:
    command = ["systemctl", "--user", "--quiet", *words]
    subprocess.run(command, env=_OWN_ENVIRONMENT, stderr=subprocess.DEVNULL, check=False, timeout=60)


def main() -> int:
    with user_manager() as manager:
        return subprocess.run(sys.argv[1:], env=os.environ | manager.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

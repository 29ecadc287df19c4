"""Control groups: those that tests create on a machine whose PID 1 is not systemd, and those of other processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

_REMOVED_SECONDS = 20.0


def booted_with_systemd() -> bool:
    return Path("/proc/1/comm").read_text().strip() == "systemd"


def mount() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise RuntimeError("no cgroup2 mount: mount -t cgroup2 none /sys/fs/cgroup")


def of(pid: int) -> Path:
    """Return the path of a process in the unified hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return mount() / next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))


def entering(cgroup: Path, command: Sequence[str]) -> list[str]:
    """Return the command line that moves itself into the cgroup, then runs `command`."""
    return ["/bin/sh", "-c", f'echo $$ > "{cgroup}/cgroup.procs" && exec "$@"', "sh", *command]


def remove(cgroup: Path) -> None:
    """Kill the processes left in it, and remove it."""
    end = time.monotonic() + _REMOVED_SECONDS
    while time.monotonic() < end:
        folders = [Path(folder) for folder, _, _ in os.walk(cgroup, topdown=False)]
        for folder in folders:
            try:
                pids = (folder / "cgroup.procs").read_text().split()
            except OSError:
                continue
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        try:
            for folder in folders:
                folder.rmdir()
            return
        except OSError:
            time.sleep(0.02)

"""Control groups: whether the kernel counts the memory of each model for this user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning

MOUNT = Path("/sys/fs/cgroup")
_LOST = "models' RAM is added up from processes, and deaths for want of it may go untold"


@dataclass(frozen=True, slots=True)
class ControlGroups:
    is_unified: bool  # version 2 alone, and no hierarchies of version 1 beside it
    controllers: tuple[str, ...]  # that the user manager may hand on to its units


def read_cgroups(control_group: str, mount: Path = MOUNT) -> ControlGroups:
    is_unified = (mount / "cgroup.controllers").exists()
    root = mount if is_unified else mount / "unified"
    try:
        controllers = (root / control_group.lstrip("/") / "cgroup.controllers").read_text("ascii")
    except FileNotFoundError:  # version 1 alone
        controllers = ""
    return ControlGroups(is_unified, tuple(controllers.split()))


def check_cgroups(groups: ControlGroups) -> Iterator[Diagnosis]:
    if "memory" in groups.controllers:
        yield ok(f"delegated to this user: {', '.join(groups.controllers)}")
    elif not groups.is_unified:
        yield warning(
            f"of version 1, so memory is not counted: {_LOST}",
            "stat -fc %T /sys/fs/cgroup   # to be cgroup2fs: kernel option systemd.unified_cgroup_hierarchy=1",
        )
    else:
        yield warning(
            f"memory is not delegated to you: {_LOST}",
            "sudo systemctl edit user@.service   # [Service] Delegate=cpu memory pids; then log in anew",
        )

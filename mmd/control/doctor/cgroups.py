"""Check whether the kernel counts memory per unit for this user (cgroup v2, memory controller delegated)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning

MOUNT = Path("/sys/fs/cgroup")
_LOST = "RAM is summed per process, and out-of-memory kills may go unnoticed"


@dataclass(frozen=True, slots=True)
class ControlGroups:
    is_unified: bool  # only cgroup v2 is mounted, no v1 hierarchies beside it
    controllers: tuple[str, ...]  # those the user manager can enable for its units


def read_cgroups(control_group: str, mount: Path = MOUNT) -> ControlGroups:
    is_unified = (mount / "cgroup.controllers").exists()
    root = mount if is_unified else mount / "unified"
    try:
        controllers = (root / control_group.lstrip("/") / "cgroup.controllers").read_text("ascii")
    except FileNotFoundError:  # only cgroup v1
        controllers = ""
    return ControlGroups(is_unified, tuple(controllers.split()))


def check_cgroups(groups: ControlGroups) -> Iterator[Diagnosis]:
    if "memory" in groups.controllers:
        yield ok(f"controllers of this user: {', '.join(groups.controllers)}")
    elif not groups.is_unified:
        yield warning(
            f"cgroup v1 does not count memory per user unit: {_LOST}",
            "stat -fc %T /sys/fs/cgroup   # should say cgroup2fs; kernel option: systemd.unified_cgroup_hierarchy=1",
        )
    else:
        yield warning(
            f"the memory controller is not delegated to this user: {_LOST}",
            "sudo systemctl edit user@.service   # [Service] Delegate=cpu memory pids; then log out and in",
        )

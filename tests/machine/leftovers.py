"""What a purged package has left on a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.machine import debian
from tests.machine.machine import Machine

# What any Debian writes while it runs, and the user's own.
_ELSEWHERE = ("home", "proc", "run", "srv", "sys", "tmp", "dev", "var/log", "var/cache", "var/lib/apt", "var/lib/dpkg")


def leftovers(machine: Machine) -> set[str]:
    """What was not there when the machine was new, and belongs to no package that is installed."""
    return set(_paths(machine.root)) - set(_paths(debian.base(machine.suite))) - set(_owned(machine.root))


def _paths(root: Path) -> Iterator[str]:
    skipped = {root / place for place in _ELSEWHERE}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if Path(folder, name) not in skipped]
        for name in (*names, *files):
            yield str(Path(folder, name).relative_to(root))


def _owned(root: Path) -> Iterator[str]:
    for listing in (root / "var/lib/dpkg/info").glob("*.list"):
        for path in listing.read_text().splitlines():
            # Some packages still name /lib, which is a link to /usr/lib.
            first, _, rest = path.lstrip("/").partition("/")
            yield f"usr/{first}/{rest}" if (root / first).is_symlink() else path.lstrip("/")

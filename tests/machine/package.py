"""The Debian package that a machine gets: what `make deb` has put into dist/, and a newer one made of it."""

from __future__ import annotations

from pathlib import Path

from tests.machine.machine import Machine

DIST = Path(__file__).parents[2] / "dist"
# Where it lies in a machine: apt's own user may read it there.
PLACE = "/srv/mmd.deb"
NEWER_PLACE = "/srv/newer.deb"
NEWER = "99.0"
_NUMBERS = {"bookworm": 12, "trixie": 13, "forky": 14}


def put_package(machine: Machine) -> None:
    """The last one that was built for its suite."""
    built = sorted(DIST.glob(f"mmd_*~deb{_NUMBERS[machine.suite]}u*.deb"), key=lambda file: file.stat().st_mtime)
    assert built, f"no package for {machine.suite} in {DIST}: make deb SUITE={machine.suite}"
    (machine.root / PLACE.lstrip("/")).write_bytes(built[-1].read_bytes())


def make_newer(machine: Machine) -> None:
    """The same with a higher version, which the program itself tells too; quicker than another build."""
    machine.run(
        f"""
        set -e
        dpkg-deb --raw-extract {PLACE} /srv/newer
        cd /srv/newer
        sed -i 's/^Version: .*/Version: {NEWER}/' DEBIAN/control
        sed -i 's/^__version__ = .*/__version__ = "{NEWER}"/' usr/lib/mmd/lib/python3*/site-packages/mmd/__init__.py
        dpkg-deb --build -Znone --root-owner-group . {NEWER_PLACE} >/dev/null
        rm -r /srv/newer
        """,
        user="root",
    )

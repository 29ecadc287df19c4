"""The Debian package that a machine gets: the one that `make deb SUITE=…` made in dist/, and a newer one."""

from __future__ import annotations

from pathlib import Path

from tests.machine.machine import Machine

DIST = Path(__file__).parents[2] / "dist"
# Its place in a machine: apt's own user may read it there.
PLACE = "/srv/mmd.deb"
NEWER_PLACE = "/srv/newer.deb"
NEWER = "99.0"


def put_package(machine: Machine) -> None:
    """Return the package built for its suite."""
    folder = DIST / machine.suite
    built = list(folder.glob("mmd_*.deb"))
    assert built, f"no package in {folder}: make deb SUITE={machine.suite}"
    (machine.root / PLACE.lstrip("/")).write_bytes(built[0].read_bytes())


def make_newer(machine: Machine) -> None:
    """Make the same package with a higher version, in the program too; quicker than another build."""
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

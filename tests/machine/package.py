"""The Debian package that a machine gets: what `make deb SUITE=…` has put into dist/, and a newer one made of it."""

from __future__ import annotations

from pathlib import Path

from tests.machine.machine import Machine

DIST = Path(__file__).parents[2] / "dist"
# Where it lies in a machine: apt's own user may read it there.
PLACE = "/srv/mmd.deb"
NEWER_PLACE = "/srv/newer.deb"
NEWER = "99.0"


def put_package(machine: Machine) -> None:
    """The one that was built for its suite."""
    folder = DIST / machine.suite
    built = list(folder.glob("mmd_*.deb"))
    assert built, f"no package in {folder}: make deb SUITE={machine.suite}"
    (machine.root / PLACE.lstrip("/")).write_bytes(built[0].read_bytes())


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

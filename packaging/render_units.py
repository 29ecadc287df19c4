#!/usr/bin/env python3
"""Write the units for a package: packaging/render_units.py FOLDER

They belong in /usr/lib/systemd/user and start /usr/bin/mmd. Needs only Python 3.11 or newer.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmd.units.unit_files import write_for_package


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: packaging/render_units.py FOLDER", file=sys.stderr)
        return 2
    write_for_package(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

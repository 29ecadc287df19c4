"""Remove entries of the ledger whose units no longer exist.

systemd removes the folders with the units. A user manager that was killed leaves them behind, and they would count as
held for ever.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from mmd.paths import TOKEN_SUFFIX, runtime_dir
from mmd.plan.lease import lease_id
from mmd.plan.residency import Pair
from mmd.units.watch import UnitStates

_log = logging.getLogger(__name__)

# The call of a planner that has just been killed may still be on its way: its units appear after they were listed.
_MIN_AGE_SECONDS = 10.0


def remove_leftovers(states: UnitStates) -> None:
    """Remove the folders of models and leases that have no unit. The caller holds the planner's lock."""
    alive = {*(name for name, pair in states.pairs.items() if _is_loaded(pair)), *map(lease_id, states.leases)}
    for folder in _old_folders():
        if folder.name.removesuffix(TOKEN_SUFFIX) not in alive:
            _log.warning("removing %s: its unit is gone, and systemd has left it behind", folder)
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:
                continue  # systemd removes it just now
            except OSError as error:
                _log.warning("%s cannot be removed: %s", folder, error.strerror)


def _is_loaded(pair: Pair) -> bool:
    return pair.engine.loaded or pair.token.loaded


def _old_folders() -> list[Path]:
    """Return the folders that have not changed for a while."""
    before = time.time() - _MIN_AGE_SECONDS
    try:
        return [path for path in runtime_dir().iterdir() if not path.name.startswith(".") and _is_old(path, before)]
    except FileNotFoundError:
        return []


def _is_old(path: Path, before: float) -> bool:
    try:
        return path.is_dir() and path.stat().st_mtime < before
    except FileNotFoundError:
        return False  # systemd removes it just now

"""The units that are files: where they come from, and how they get into a user's manager and out again."""

from __future__ import annotations

import sys
from pathlib import Path

from mmd.errors import MmdError, StorageFailed
from mmd.paths import user_unit_dir
from mmd.units.bus import JobResult, Manager

UNITS = ("mmd.slice", "mmd.service", "mmd.socket")

# In the files, where the command that starts mmd belongs.
_COMMAND = "@MMD@"


def mmd_command() -> str:
    """mmd by the interpreter that runs it now: right in a checkout, a virtual environment and a package alike."""
    return f"{sys.executable} -P -m mmd"


def unit_text(name: str) -> str:
    """One of `UNITS` as it is installed."""
    return (_source_dir() / name).read_text("utf-8").replace(_COMMAND, mmd_command())


async def install(manager: Manager) -> tuple[Path, ...]:
    """Write the units into the user's own unit folder, and have the gateway's socket listen now and after a login.

    A gateway that runs is told to end: its socket stays, and the next connection starts the new one.
    """
    folder = user_unit_dir()
    written = tuple(folder / name for name in UNITS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in written:
            file.write_text(unit_text(file.name), "utf-8")
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written: {error.strerror}.", hint=f"ls -ld {folder}; df -h {folder}"
        ) from error
    await manager.reload()
    await manager.enable(["mmd.socket"])
    await manager.reload()
    await manager.run_job("mmd.service", manager.stop("mmd.service"))
    if await manager.run_job("mmd.socket", manager.start("mmd.socket")) is not JobResult.DONE:
        raise MmdError(
            "mmd.socket does not listen: its address is taken, or not to be had.",
            hint="systemctl --user status mmd.socket; ss -ltnp 'sport = :8000'",
        )
    return written


async def remove(manager: Manager) -> tuple[Path, ...]:
    """Undo `install`. Models go on running, and stay registered."""
    for unit in ("mmd.socket", "mmd.service"):
        await manager.run_job(unit, manager.stop(unit))
    await manager.disable(["mmd.socket"])
    gone = tuple(file for name in UNITS if (file := user_unit_dir() / name).exists())
    for file in gone:
        file.unlink()
    await manager.reload()
    return gone


def _source_dir() -> Path:
    """`units/` of the checkout that runs, or the installed data files beside the interpreter."""
    beside = Path(__file__).resolve().parents[2] / "units"
    return beside if (beside / UNITS[0]).is_file() else Path(sys.prefix) / "share/mmd/units"

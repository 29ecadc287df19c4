"""The units that are files: where they come from, and how they get into a user's manager and out again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmd.errors import MmdError, StorageFailed
from mmd.paths import user_unit_dir
from mmd.units.bus import JobResult, Manager
from mmd.units.spec import command_line, quoted

UNITS = ("mmd.slice", "mmd.service", "mmd.socket", "mmd-boot.service")
_ENABLED = ("mmd.socket", "mmd-boot.service")

# In the files: the command that starts mmd, the address of the gateway, and where it looks for engines.
_COMMAND = "@MMD@"
_LISTEN = "@LISTEN@"
_PATH = "@PATH@"


def mmd_command() -> str:
    """mmd by the interpreter that runs it now: right in a checkout, a virtual environment and a package alike."""
    return command_line((sys.executable, "-P", "-m", "mmd"))


def unit_text(name: str, *, listen: str) -> str:
    """One of `UNITS` as it is installed; the gateway's socket is to be at `listen`, HOST:PORT."""
    template = (_source_dir() / name).read_text("utf-8")
    path = quoted(f"PATH={os.environ.get('PATH', os.defpath)}")
    return template.replace(_COMMAND, mmd_command()).replace(_LISTEN, listen).replace(_PATH, path)


async def install(manager: Manager, *, listen: str) -> tuple[Path, ...]:
    """Write the units into the user's own unit folder, have the gateway's socket listen now and after a login, and the
    models of a boot loaded then.

    Over an older installation the gateway is told to end; the next connection starts the new one.
    """
    folder = user_unit_dir()
    written = tuple(folder / name for name in UNITS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in written:
            file.write_text(unit_text(file.name, listen=listen), "utf-8")
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written: {error.strerror}", hint=f"ls -ld {folder}; df -h {folder}"
        ) from error
    await manager.reload()
    await manager.enable(_ENABLED)
    await manager.reload()
    for unit in ("mmd.socket", "mmd.service"):
        await manager.run_job(unit, manager.stop(unit))
    await manager.reset_failed("mmd.socket")
    if await manager.run_job("mmd.socket", manager.start("mmd.socket")) is not JobResult.DONE:
        raise MmdError(
            f"the gateway cannot listen on {listen}: somebody else does, or it is not yours (below 1024 it is root's)",
            hint=f"ss -ltnp 'sport = :{listen.rpartition(':')[2]}'   # who; or set [gateway] listen in mmd.toml",
        )
    return written


async def remove(manager: Manager) -> tuple[Path, ...]:
    """Undo `install`. Models go on running, and stay registered."""
    gone = tuple(file for name in UNITS if (file := user_unit_dir() / name).exists())
    if not gone:
        return ()
    for unit in ("mmd.socket", "mmd.service", "mmd-boot.service"):
        await manager.run_job(unit, manager.stop(unit))
    await manager.disable(_ENABLED)
    for file in gone:
        file.unlink()
    await manager.reload()
    return gone


def _source_dir() -> Path:
    """`units/` of the checkout that runs, or the installed data files beside the interpreter."""
    beside = Path(__file__).resolve().parents[2] / "units"
    return beside if (beside / UNITS[0]).is_file() else Path(sys.prefix) / "share/mmd/units"

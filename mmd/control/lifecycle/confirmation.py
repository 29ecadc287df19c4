"""Check what was read from vLLM's source against its own --help: once per version, in the background."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path

from mmd.engines import engine
from mmd.errors import MmdError
from mmd.plan.launch import Launch
from mmd.units.bus import Manager
from mmd.units.bus_errors import UnitExists
from mmd.units.directives import Command, Number, Seconds, Text
from mmd.units.spec import UnitSpec

_UNIT = "mmd-confirm.service"

_log = logging.getLogger(__name__)


async def confirm_in_background(manager: Manager, launch: Launch) -> None:
    """Start a unit that runs --help of the launch's engine, unless this was done for its version before.

    It takes ten seconds of a core. The result is logged, and used to plan the next start.
    """
    program = launch.argv[0]
    try:
        # Not by the machine reader, in whose thread a driver may hang: requests for the loaded model wait for this.
        if await asyncio.to_thread(engine(launch.engine).is_confirmed, Path(program)):
            return
        with suppress(UnitExists):  # the unit runs already
            await manager.start_transient(_unit(launch.engine, program))
    except MmdError as error:
        _log.info("cannot check the options of %s: %s", program, error.message)


def _unit(engine_name: str, program: str) -> UnitSpec:
    return UnitSpec(
        _UNIT,
        (
            Text("Description", f"Check the options of {program}"),
            Text("CollectMode", "inactive-or-failed"),
            Text("Type", "oneshot"),
            Command("ExecStart", (sys.executable, "-P", "-m", "mmd", "engine", "confirm", engine_name, program)),
            Seconds("TimeoutStartSec", 300),
            Number("Nice", 19),
            Text("SyslogIdentifier", "mmd"),
        ),
    )

"""Kill an engine whose token's release hook no longer exists: it was removed with the mmd that created the token.

Otherwise systemd would mark the token failed, and load the next model while the engine still holds the GPU.
"""

from __future__ import annotations

import asyncio
import logging
from subprocess import DEVNULL, PIPE

from mmd.errors import EngineStuck
from mmd.journal import about
from mmd.paths import engine_socket
from mmd.units.bus import Manager
from mmd.units.bus_errors import NoSuchUnit
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks, missing_programs

_END_TIMEOUT_SECONDS = 40.0  # a killed engine ends at once; the driver may need a moment more

_log = logging.getLogger(__name__)


async def kill_if_hook_missing(manager: Manager, model_id: str, hooks: Hooks) -> None:
    """Kill a model's engine if its token's release hook is missing; return when the engine has released the GPU.

    Call it before stopping the token; usually it costs one D-Bus call. Raises EngineStuck if the engine does not end.
    """
    try:
        commands = await manager.commands(token_unit(model_id), "ExecStopPost")
    except NoSuchUnit:
        return
    missing = await asyncio.to_thread(missing_programs, commands)
    if not missing:
        return
    fields = about(model_id, unit=engine_unit(model_id))
    _log.warning(
        "killing %s: the hook %s of its token is missing",
        model_id,
        missing[0],
        extra=fields,
    )
    await _end(manager, model_id, hooks)


async def _end(manager: Manager, model_id: str, hooks: Hooks) -> None:
    """Run this mmd's wait_released hook, which finds the engine's processes and kills them."""
    unit = engine_unit(model_id)
    command = (*hooks.wait_released, unit, str(engine_socket(model_id)), "end")
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    try:
        async with asyncio.timeout(_END_TIMEOUT_SECONDS):
            _, output = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        output = b"timed out"
    if process.returncode or await _runs(manager, unit):
        reason = output.decode("utf-8", "replace").strip() or "it still runs"
        raise EngineStuck(
            f"{model_id} holds the GPU, and its engine does not end: {reason}",
            hint=f"systemctl --user kill -s KILL {unit}",
        )


async def _runs(manager: Manager, unit: str) -> bool:
    try:
        return (await manager.unit(unit))["ActiveState"] not in ("inactive", "failed")
    except NoSuchUnit:
        return False

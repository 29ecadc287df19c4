"""What an engine said: its last lines, from the journal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from mmd.journal import SOCKET, packed

_ASK_SECONDS = 10.0
_CATCH_UP_SECONDS = 3.0
_LOOK_SECONDS = 0.02
# "UNIT: Main process exited, code=dumped, status=11/SEGV" and "UNIT: Failed with result 'core-dump'.", by the manager:
# see systemd's sd-messages.h.
_PROCESS_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
_UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"


@dataclass(frozen=True, slots=True)
class Ended:
    """A unit that systemd has noted as failed."""

    unit: str
    result: str  # as in a service's `Result`
    status: int  # as in its `ExecMainStatus`; 0 where no process of it had ended
    at_us: int  # on the wall clock


async def last_lines(model_id: str, *, since_us: int, count: int = 50) -> list[str]:
    """The newest lines under the model's name since a wall-clock time in microseconds; none where there is no journal.

    Asked of the whole journal that this user may read, not of `--user`: root's own lines are not in a user's file.
    """
    lines = await _ask(
        f"--identifier={model_id}", f"_UID={os.getuid()}",
        # --since with --lines gives the first lines after it (systemd 252), so the newest are asked for in reverse.
        f"--since=@{since_us / 1_000_000:.6f}", f"--lines={count}", "--reverse",
    )  # fmt: skip
    return lines or []


async def lines_between(model_id: str, *, since_us: int, until_us: int) -> list[str]:
    """All lines under the model's name in a span of wall-clock time, oldest first; none where there is no journal."""
    lines = await _ask(
        f"--identifier={model_id}", f"_UID={os.getuid()}", "--reverse",
        f"--since=@{since_us / 1_000_000:.6f}", f"--until=@{until_us / 1_000_000:.6f}",
    )  # fmt: skip
    return lines or []


async def units_that_failed(control_group: str, *, since_us: int) -> list[Ended] | None:
    """mmd's units that the user manager in this control group has seen fail since a wall-clock time in microseconds,
    oldest first; None where the journal cannot be read. The group is the same after a restart of the machine, and no
    other manager's.
    """
    lines = await _ask(
        f"MESSAGE_ID={_PROCESS_EXITED}", f"MESSAGE_ID={_UNIT_FAILED}", f"_SYSTEMD_CGROUP={control_group}/init.scope",
        f"--since=@{since_us / 1_000_000:.6f}", "--reverse", "--output=json",
    )  # fmt: skip
    return None if lines is None else ended_units(map(json.loads, lines))


def ended_units(entries: Iterable[Mapping[str, str]]) -> list[Ended]:
    """mmd's units that failed, of what the manager has noted of ends."""
    ended: list[Ended] = []
    statuses: dict[str, int] = {}
    for entry in entries:
        unit = entry.get("USER_UNIT", "")
        if entry["MESSAGE_ID"] == _PROCESS_EXITED:
            statuses[unit] = int(entry["EXIT_STATUS"])
        elif unit.startswith("mmd") and (unit in statuses or all(one.unit != unit for one in ended)):
            # One that follows without a process that had ended is the same again: the start limit was hit.
            ended.append(Ended(unit, entry["UNIT_RESULT"], statuses.pop(unit, 0), int(entry["__REALTIME_TIMESTAMP"])))
    return ended


async def last_words(model_id: str, *, since_us: int, count: int) -> list[str]:
    """As `last_lines`, of an engine that has just died: journald may be behind by what matters most."""
    mark = os.urandom(8).hex()
    said = {
        "MESSAGE": f"why did {model_id} not start?",
        "PRIORITY": "7",
        "SYSLOG_IDENTIFIER": "mmd",
        "MMD_MODEL": model_id,
        "MMD_MARK": mark,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, suppress(OSError):  # none: nothing to wait for
        journal.sendto(packed(said), str(SOCKET))
        await _until_there(f"MMD_MARK={mark}")
    return await last_lines(model_id, since_us=since_us, count=count)


async def _until_there(match: str) -> None:
    """Wait, within reason, until the journal has a line; those that were written before it are there then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CATCH_UP_SECONDS):
            while not await _ask(match, "--lines=1"):  # noqa: ASYNC110 nobody tells
                await asyncio.sleep(_LOOK_SECONDS)


async def _ask(*words: str) -> list[str] | None:
    """The lines that journalctl prints, oldest first where it was asked in reverse. None where it is not there, does
    not answer in time, or may not look.
    """
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return None
    process = await asyncio.create_subprocess_exec(
        journalctl, "--quiet", "--no-pager", "--output=cat", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        # Also when this is cancelled, as the progress line is once its model is up.
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in reversed(output.decode("utf-8", "replace").splitlines()) if line.strip()]
    return None if process.returncode and not lines else lines

"""The output of an engine, and failures of units, from the journal."""

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

_JOURNALCTL_TIMEOUT_SECONDS = 10.0
_CATCH_UP_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.02
# The manager's messages "UNIT: Main process exited, code=dumped, status=11/SEGV" and "UNIT: Failed with result
# 'core-dump'.": see systemd's sd-messages.h.
_PROCESS_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
_UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"


@dataclass(frozen=True, slots=True)
class Ended:
    """A unit that systemd has logged as failed."""

    unit: str
    result: str  # as in a service's `Result`
    status: int  # as in its `ExecMainStatus`; 0 if no process of it had ended
    at_us: int  # on the wall clock


async def last_lines(model_id: str, *, since_us: int, count: int = 50) -> list[str]:
    """Return the newest lines of a model since a wall-clock time in microseconds; none without a journal.

    They are read from the whole journal that this user may read, not with `--user`: root's lines are in no user's file.
    """
    lines = await _ask(
        f"--identifier={model_id}", f"_UID={os.getuid()}",
        # --since with --lines returns the first lines (systemd 252); --reverse makes it the newest.
        f"--since=@{since_us / 1_000_000:.6f}", f"--lines={count}", "--reverse",
    )  # fmt: skip
    return lines or []


async def lines_between(model_id: str, *, since_us: int, until_us: int) -> list[str]:
    """Return all lines of a model in a span of wall-clock time, oldest first; none without a journal."""
    lines = await _ask(
        f"--identifier={model_id}", f"_UID={os.getuid()}", "--reverse",
        f"--since=@{since_us / 1_000_000:.6f}", f"--until=@{until_us / 1_000_000:.6f}",
    )  # fmt: skip
    return lines or []


async def units_that_failed(control_group: str, *, since_us: int) -> list[Ended] | None:
    """Return mmd's units that failed since a wall-clock time in microseconds, oldest first.

    `control_group` is that of the user manager: it survives a reboot, and no other manager has it. None if the journal
    cannot be read.
    """
    lines = await _ask(
        f"MESSAGE_ID={_PROCESS_EXITED}", f"MESSAGE_ID={_UNIT_FAILED}", f"_SYSTEMD_CGROUP={control_group}/init.scope",
        f"--since=@{since_us / 1_000_000:.6f}", "--reverse", "--output=json",
    )  # fmt: skip
    return None if lines is None else ended_units(map(json.loads, lines))


def ended_units(entries: Iterable[Mapping[str, str]]) -> list[Ended]:
    """Return mmd's failed units among the manager's messages."""
    ended: list[Ended] = []
    statuses: dict[str, int] = {}
    for entry in entries:
        unit = entry.get("USER_UNIT", "")
        if entry["MESSAGE_ID"] == _PROCESS_EXITED:
            statuses[unit] = int(entry["EXIT_STATUS"])
        elif unit.startswith("mmd") and (unit in statuses or all(one.unit != unit for one in ended)):
            # A failure without an ended process repeats the last one: the start limit was hit.
            ended.append(Ended(unit, entry["UNIT_RESULT"], statuses.pop(unit, 0), int(entry["__REALTIME_TIMESTAMP"])))
    return ended


async def last_words(model_id: str, *, since_us: int, count: int) -> list[str]:
    """Return the same as `last_lines` for an engine that has just died: wait until journald has caught up."""
    mark = os.urandom(8).hex()
    fields = {
        "MESSAGE": f"reading the last lines of {model_id}",
        "PRIORITY": "7",
        "SYSLOG_IDENTIFIER": "mmd",
        "MMD_MODEL": model_id,
        "MMD_MARK": mark,
    }
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
        suppress(OSError),
    ):  # without a journal there is nothing to wait for
        journal.sendto(packed(fields), str(SOCKET))
        await _until_there(f"MMD_MARK={mark}")
    return await last_lines(model_id, since_us=since_us, count=count)


async def _until_there(match: str) -> None:
    """Wait until the journal has a line, or for the timeout; it then has all lines written before that one."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CATCH_UP_TIMEOUT_SECONDS):
            while not await _ask(match, "--lines=1"):  # noqa: ASYNC110 journald sends no signal
                await asyncio.sleep(_POLL_SECONDS)


async def _ask(*words: str) -> list[str] | None:
    """Return the lines that `journalctl --reverse` prints, oldest first.

    None if journalctl is missing, does not answer in time, or may not read the journal.
    """
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return None
    process = await asyncio.create_subprocess_exec(
        journalctl, "--quiet", "--no-pager", "--output=cat", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_JOURNALCTL_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        # Also if this is cancelled, as the progress line is when its model has loaded.
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in reversed(output.decode("utf-8", "replace").splitlines()) if line.strip()]
    return None if process.returncode and not lines else lines

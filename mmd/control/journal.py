"""What an engine said: its last lines, from the journal."""

from __future__ import annotations

import asyncio
import os
import shutil

_ASK_SECONDS = 10.0


async def last_lines(model_id: str, *, since_us: int, count: int = 50) -> list[str]:
    """The newest lines under the model's name since a wall-clock time in microseconds; none where there is no journal.

    Asked of the whole journal that this user may read, not of `--user`: root's own lines are not in a user's file.
    """
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return []
    words = (
        "--quiet", "--no-pager", "--output=cat", f"--identifier={model_id}", f"_UID={os.getuid()}",
        # --since with --lines gives the first lines after it (systemd 252), so the newest are asked for in reverse.
        f"--since=@{since_us / 1_000_000:.6f}", f"--lines={count}", "--reverse",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        journalctl, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return []
    finally:
        # Also when this is cancelled, as the progress line is once its model is up.
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [line for line in reversed(output.decode("utf-8", "replace").splitlines()) if line.strip()]

"""The line shown while a model loads: the time it has taken, and the engine's last log line."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import TypeVar

from mmd.cli.live_line import LiveLine
from mmd.control.state.engine_log import last_lines
from mmd.tasks import spawn

Result = TypeVar("Result")

_DELAY_SECONDS = 0.3  # a load that ends sooner shows no line
_REDRAW_SECONDS = 0.5


async def shown_while_loading(name: str, models: Sequence[str], work: Awaitable[Result]) -> Result:
    """Await `work`, which loads the models of `name`, a model or setup; on a terminal, show a line meanwhile."""
    if not sys.stderr.isatty():
        return await work
    line = spawn("progress line", _draw(name, models), logs=False)
    try:
        return await work
    finally:
        line.cancel()
        with suppress(asyncio.CancelledError):
            await line


async def _draw(name: str, models: Sequence[str]) -> None:
    line = LiveLine()
    began, since_us = time.monotonic(), time.time_ns() // 1000
    await asyncio.sleep(_DELAY_SECONDS)
    try:
        while True:
            output = [line for one in models for line in await last_lines(one, since_us=since_us, count=1)]
            elapsed = f"{time.monotonic() - began:5.1f} s"
            line.draw(f"{name} is loading · {elapsed}" + (f" · {output[-1].strip()}" if output else ""))
            await asyncio.sleep(_REDRAW_SECONDS)
    finally:
        line.clear()

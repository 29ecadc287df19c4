"""The line that is shown while a model loads: how long it has been, and what its engine says it is doing."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import click

from mmd.control.state.engine_log import last_lines
from mmd.tasks import spawn

Result = TypeVar("Result")

_PATIENCE_SECONDS = 0.3  # a load that is quicker needs no line
_STEP_SECONDS = 0.5


async def shown_while_loading(model_id: str, work: Awaitable[Result]) -> Result:
    """Await `work`; on a terminal, with a line that is redrawn and gone at the end."""
    if not sys.stderr.isatty():
        return await work
    line = spawn("progress line", _draw(model_id), logs=False)
    try:
        return await work
    finally:
        line.cancel()
        with suppress(asyncio.CancelledError):
            await line


async def _draw(model_id: str) -> None:
    began, since_us = time.monotonic(), time.time_ns() // 1000
    await asyncio.sleep(_PATIENCE_SECONDS)
    try:
        while True:
            said = await last_lines(model_id, since_us=since_us, count=1)
            elapsed = f"{time.monotonic() - began:5.1f} s"
            width = shutil.get_terminal_size().columns
            text = f"{model_id} loads · {elapsed}" + (f" · {said[-1].strip()}" if said else "")
            click.echo(f"\r\x1b[K{text[: width - 1]}", err=True, nl=False)
            await asyncio.sleep(_STEP_SECONDS)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)

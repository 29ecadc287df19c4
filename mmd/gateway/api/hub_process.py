"""Access to the Hugging Face hub through child processes: the gateway stays small, and a kill ends a download."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from mmd.codec import convert
from mmd.control.models.hub_hit import HubHit
from mmd.errors import HubUnavailable, from_record
from mmd.registry.hub.progress import Progress

_MAX_LINE_BYTES = 16 << 20  # the results of a search are one line
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, slots=True)
class Selected:
    """The files that a download fetches."""

    repository: str
    revision: str  # the requested branch, tag or commit
    commit: str  # the commit of that revision
    file: str
    total_bytes: int
    files_total: int


@dataclass(frozen=True, slots=True)
class Registered:
    model: str


class Hub(Protocol):
    async def search(self, query: Mapping[str, Any]) -> list[HubHit]:
        """Search. `query` has the fields of mmd.registry.hub.search.Query except the formats, which the child knows."""
        ...

    async def select(self, repository: str, file: str | None, revision: str | None) -> Selected: ...

    def download(self, selected: Selected) -> AsyncGenerator[Progress | Registered]:
        """Yield the progress, at most twice a second, and at the end the model's id. Closing it ends the download."""
        ...


class HubChild:
    """A `Hub` over `python -m mmd.control.models.hub_process`. Every call raises the errors that the child reports."""

    async def search(self, query: Mapping[str, Any]) -> list[HubHit]:
        return convert((await self._one("search", json.dumps(query)))["hits"], list[HubHit])

    async def select(self, repository: str, file: str | None, revision: str | None) -> Selected:
        reply = await self._one("select", repository, file or "", revision or "")
        return convert(reply["selection"], Selected)

    async def download(self, selected: Selected) -> AsyncGenerator[Progress | Registered]:
        words = (selected.repository, selected.file, selected.commit, selected.revision)
        async with aclosing(_output("download", *words)) as lines:
            async for line in lines:
                yield Registered(line["model"]) if "model" in line else convert(line["progress"], Progress)

    async def _one(self, *words: str) -> dict[str, Any]:
        async with aclosing(_output(*words)) as lines:
            async for line in lines:
                return line
        raise AssertionError("a child without output has failed, which raises")


async def _output(*words: str) -> AsyncGenerator[dict[str, Any]]:
    """Yield the lines of the child as parsed JSON. Raise the error that it reports."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "mmd.control.models.hub_process", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | _ENVIRONMENT,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            reply = json.loads(line)
            if "error" in reply:
                raise from_record(reply["error"]) or AssertionError(reply)
            yield reply
        if await process.wait():
            raise HubUnavailable(
                f"the program that asks the hub ended with status {process.returncode}",
                hint="journalctl --user -u mmd.service -n 50   # shows its output",
            )
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""What the gateway that runs does better than the command: it lets answers that are under way finish first, and it
alone knows of them.

Each function returns None where no gateway of this version runs, or where it has no answer: then the work is the
caller's. Each raises what the gateway has raised.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mmd import __version__
from mmd.control.install.presence import running_version
from mmd.paths import gateway_socket

if TYPE_CHECKING:
    from mmd.control.lifecycle.swap import Activation


async def activated_by_gateway(model_id: str) -> Activation | None:
    since, began = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
    if await _asked("/models/activate", {"model": model_id}) is None:
        return None
    return _activation(model_id, since, time.monotonic() - began)


async def put_to_sleep_by_gateway(
    model_id: str | None, level: int | None
) -> tuple[tuple[str, ...], dict[str, int]] | None:
    """Who had the GPU, and the levels of all that sleep now."""
    status = await _asked("/models/sleep", {"model": model_id, "level": level})
    if status is None:
        return None
    return tuple(status["gone"]), {one["id"]: one["level"] for one in status["sleeping"]}


def _activation(model_id: str, since: str, seconds: float) -> Activation:
    """As the gateway has left it on record; a model that was resident has made no record."""
    from mmd.control.lifecycle.swap import Activation
    from mmd.control.state.swap_events import recent

    for event in reversed(recent(10)):
        if (event.model, event.outcome) == (model_id, "resident") and event.at >= since:
            return Activation(model_id, event.why, event.evicted, seconds, event.phases)
    return Activation(model_id, "it is resident", None, seconds)


async def _asked(path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    if running_version() != __version__:
        return None
    try:
        status, answer = await _post(path, body)
    except (OSError, EOFError, ValueError):  # it has ended meanwhile: what it began goes on, and can be joined
        return None
    if status == 200:
        return answer
    from mmd.errors import TryLater, from_record

    error = from_record(answer.get("error"))
    # The gateway's queue and cool-downs are about its clients' requests: the command tries by itself.
    if error is None or isinstance(error, TryLater):
        return None
    raise error


async def _post(path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """By hand: an HTTP client would take longer to import than the gateway takes to answer. It closes the connection
    after an answer of its own.
    """
    reader, writer = await asyncio.open_unix_connection(str(gateway_socket()))
    try:
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        return int(answer_head[9:12]), json.loads(await reader.read())
    finally:
        writer.close()

"""Let a running gateway do the work of a command: only the gateway can let responses in flight finish first.

Each function returns None if no gateway of this version runs or if it does not answer; the caller then does the work.
Each raises the gateway's error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mmd import __version__
from mmd.control.install.presence import running_version
from mmd.paths import gateway_socket

if TYPE_CHECKING:
    from mmd.control.lifecycle.activation import Activation
    from mmd.control.lifecycle.lease import Holder, Leased
    from mmd.control.lifecycle.lease_plan import LeaseWish


# A gateway answers this from memory.
_COUNTS_TIMEOUT_SECONDS = 1.0

_RECENT = 20  # swaps, more than end while one setup is loaded


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """How many requests each model is answering, and how many wait for it. Only a gateway knows.

    `waits_for`: the models, by the model that is waited for, whose running responses must end first.
    """

    in_flight: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    waits_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


async def requests_of_gateway() -> RequestCounts:
    """Return the requests of a running gateway; none if it does not answer soon."""
    if running_version() != __version__:
        return RequestCounts()
    import asyncio

    from mmd.codec import BadRecord, decode
    from mmd.gateway.observe.unix_http import request
    from mmd.gateway.schedule.queue_status import QueueStatus

    with suppress(OSError, ValueError, BadRecord):  # it ends just now, or hangs
        async with asyncio.timeout(_COUNTS_TIMEOUT_SECONDS):
            response = await request(gateway_socket(), "GET", "/queue")
        queue = decode(bytes(response.body), QueueStatus)
        in_flight = {one.model: one.requests for one in queue.in_flight}
        waits_for = {turn.model: tuple(other.model for other in turn.waits_for) for turn in queue.turns}
        return RequestCounts(in_flight, {turn.model: turn.waiting for turn in queue.turns}, waits_for)
    return RequestCounts()


async def activate_by_gateway(name: str, models: tuple[str, ...], *, now: bool = False) -> Activation | None:
    """Activate a model or a setup, whose models are `models`; with `now`, cut running responses of those that leave."""
    since, began = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
    answer = await _post("/models/activate", {"model": name} | ({"now": True} if now else {}))
    if answer is None:
        return None
    cut = {one["model"]: one["requests"] for one in answer["cut"]}
    return replace(_activation(models, since, time.monotonic() - began), cut=cut)


async def sleep_by_gateway(
    name: str | None, level: int | None, *, now: bool = False
) -> tuple[tuple[str, ...], dict[str, int]] | None:
    """Return the models that were unloaded, and the level of each sleeping model. With `now`, cut their responses."""
    status = await _post("/models/sleep", {"model": name, "level": level} | ({"now": True} if now else {}))
    if status is None:
        return None
    return tuple(status["gone"]), {one["id"]: one["level"] for one in status["sleeping"]}


async def lease_by_gateway(wish: LeaseWish, holder: Holder) -> Leased | None:
    """Take a lease that hangs on this process and its pipe."""
    from mmd.control.lifecycle.lease import Leased

    asked = {"name": wish.name, "vram": wish.vram, "gpu": wish.gpu, "now": wish.now, "unload_pinned": wish.by_user}
    hangs_on = {"program": holder.program, "pid": holder.pid, "pipe": holder.pipe}
    record = await _post("/leases", {key: value for key, value in (asked | hangs_on).items() if value is not None})
    return Leased(record["name"], record["devices"], tuple(record["unloaded"])) if record is not None else None


def _activation(models: tuple[str, ...], since: str, seconds: float) -> Activation:
    """Return the activation that the gateway recorded. It records nothing for a model that was resident."""
    from mmd.control.lifecycle.activation import Activation
    from mmd.control.state.swap_events import recent

    found = [event for event in recent(_RECENT) if event.model in models and event.at >= since]
    loaded = [event for event in found if event.outcome == "resident"]
    if not loaded:
        return Activation(models, "it is resident", (), seconds)
    why = "; ".join(dict.fromkeys(event.why for event in loaded))
    evicted = tuple(dict.fromkeys(one for event in loaded for one in event.evicted))
    slowest = max(loaded, key=lambda event: event.seconds)
    return Activation(models, why, evicted, seconds, slowest.phases)


async def _post(path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    if running_version() != __version__:
        return None
    import httpx  # 45 ms, spent only if a gateway runs

    transport = httpx.AsyncHTTPTransport(uds=str(gateway_socket()))
    try:
        # No timeout: the gateway answers when the model is loaded.
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=None) as gateway:
            response = await gateway.post(path, json=body)
        record: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError):
        return None  # the gateway ended: its activation continues, and the caller joins it
    if response.is_success:
        return record
    from mmd.errors import TryLater, from_record

    error = from_record(record.get("error"))
    # A full queue and backoffs limit clients' requests only: the command then acts itself. A lease refuses both.
    if error is None or type(error) is TryLater:
        return None
    raise error

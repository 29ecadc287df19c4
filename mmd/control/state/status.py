"""What runs, as one record for the CLI and the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from mmd.control.state.devices import Bytes, DeviceUse, configured_safe_maximum, device_uses, held_bytes, measured_bytes
from mmd.control.state.leases import LeaseStatus, lease_statuses
from mmd.control.state.machine_reader import MachineReader
from mmd.control.state.memory_use import Resources, gpu_uses, read_ram, summed
from mmd.control.state.residencies import active_of
from mmd.control.state.resident_since import resident_since_us
from mmd.control.state.sleep_record import asleep_level
from mmd.control.state.suspended_models import suspended_models
from mmd.control.state.swap_events import SwapEvent, expected_seconds, recent
from mmd.paths import tunnels_dir
from mmd.plan.residency import Pair, Residency, held_now, residency
from mmd.units.names import engine_unit
from mmd.units.watch import Pairs, leases_of, pairs_of

if TYPE_CHECKING:
    from mmd.units.bus import Manager


_RECENT_SWAPS = 20  # of which `unloaded` is read
_MAX_UNLOADED = 5


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that answers requests. `devices`: the bytes that it holds of each device, whether it uses them or not.
    `used`: the bytes that the driver reports; empty if it reports none.
    """

    id: str
    type: str
    engine: str
    devices: Bytes
    used: Bytes
    since: str | None  # when it became resident: ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Stranded:
    """A model whose engine is awake without its token: its release hook was killed. The next activation ends it."""

    id: str
    devices: Bytes


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A model that was unloaded for another one, and has not been loaded since."""

    id: str
    unloaded_for: str
    why: str  # why it was this model; "" if that is not known
    at: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Sleeping:
    id: str
    level: int
    ram_bytes: int
    wake_seconds: float | None  # expected duration of its wake; None if it is not known
    devices: Bytes = field(default_factory=dict)  # what it keeps of each device


@dataclass(frozen=True, slots=True)
class Starting:
    id: str
    seconds: float
    expected_seconds: float | None  # expected duration of its load; None if it is not known
    devices: Bytes = field(default_factory=dict)  # what it holds of each device


@dataclass(frozen=True, slots=True)
class Failed:
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exposed:
    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Status:
    active: str | None  # the model that answers if a request names none: the generating one asked for last
    resident: tuple[Resident, ...]
    sleeping: tuple[Sleeping, ...]
    starting: tuple[Starting, ...]
    stranded: tuple[Stranded, ...]
    failed: tuple[Failed, ...]
    away: tuple[str, ...]  # unloaded because the machine suspends, and not restored yet
    leases: tuple[LeaseStatus, ...]
    exposed: tuple[Exposed, ...]  # models reachable from the internet, and their URLs
    unloaded: tuple[Unloaded, ...]  # the latest first
    devices: tuple[DeviceUse, ...]
    resources: Resources

    @property
    def resident_ids(self) -> tuple[str, ...]:
        return tuple(one.id for one in self.resident)


async def current_status() -> Status:
    """As `read_status`, over a new connection. Raises ManagerUnreachable."""
    from mmd.units.bus import Manager

    async with MachineReader() as reader, await Manager.connect() as manager:
        return await read_status(manager, reader)


async def read_status(manager: Manager, reader: MachineReader) -> Status:
    """Read what runs now from the user manager, and memory from NVML and the kernel."""
    units = await manager.units()
    pairs, leases = pairs_of(units), leases_of(units)
    where = {model_id: residency(pair) for model_id, pair in sorted(pairs.items())}

    def those(wanted: Residency) -> list[str]:
        return [model_id for model_id, here in where.items() if here is wanted]

    wakes = await reader.call(expected_seconds, "wake") if those(Residency.ASLEEP) else {}
    loads = await reader.call(expected_seconds, "load") if those(Residency.STARTING) else {}
    swaps = await reader.call(recent, _RECENT_SWAPS)
    gpus, ram = await reader.gpus(), await reader.call(read_ram)
    used = measured_bytes(gpus)
    holds = {model_id: held_bytes(held_now(pair)) for model_id, pair in pairs.items()}
    sleeping = [await read_sleeping(manager, reader, model_id, wakes) for model_id in those(Residency.ASLEEP)]
    held_leases = await lease_statuses(manager, leases)
    starting = [await _starting(manager, model_id, loads) for model_id in those(Residency.STARTING)]
    return Status(
        active=active_of(pairs),
        resident=tuple(
            [
                await _resident(manager, model_id, pairs[model_id], used.get(model_id, {}))
                for model_id in those(Residency.RESIDENT)
            ]
        ),
        sleeping=tuple(replace(one, devices=holds[one.id]) for one in sleeping),
        starting=tuple(replace(one, devices=holds[one.id]) for one in starting),
        stranded=tuple(Stranded(model_id, holds[model_id]) for model_id in those(Residency.STRANDED)),
        failed=tuple([await read_failed(manager, model_id) for model_id in those(Residency.FAILED)]),
        away=tuple(model_id for model_id in suspended_models() if where.get(model_id) not in _ON_THEIR_WAY),
        leases=held_leases,
        exposed=tuple(Exposed(model_id, url) for model_id, url in exposed_urls().items()),
        unloaded=unloaded_models(swaps, pairs),
        devices=device_uses(
            gpus,
            ram,
            pairs,
            leases,
            lease_pids=[one.pid for one in held_leases if one.pid is not None],
            asleep_ram_bytes=sum(one.ram_bytes for one in sleeping),
            safe_maximum=await reader.call(configured_safe_maximum),
        ),
        resources=summed(gpu_uses(gpus), ram),
    )


def unloaded_models(swaps: Iterable[SwapEvent], pairs: Pairs) -> tuple[Unloaded, ...]:
    """Return the models that the newest swaps unloaded and that are not loaded again, the latest first.

    `swaps` are the newest swap events, oldest first.
    """
    found: dict[str, Unloaded] = {}
    for event in swaps:
        found.pop(event.model, None)
        for model_id in event.evicted:
            found.pop(model_id, None)
            found[model_id] = Unloaded(model_id, event.model, event.why_evicted.get(model_id, ""), event.at)
    gone = [one for one in reversed(found.values()) if residency(pairs.get(one.id, Pair())) not in _ON_THEIR_WAY]
    return tuple(gone[:_MAX_UNLOADED])


async def _resident(manager: Manager, model_id: str, pair: Pair, used: Bytes) -> Resident:
    # The units of mmd 0.1 do not say what they hold: what the driver reports is what is known then.
    devices = held_bytes(held_now(pair)) or used
    return Resident(
        model_id, pair.type, pair.engine_name, devices, used, since=await _resident_since(manager, model_id)
    )


async def _resident_since(manager: Manager, model_id: str) -> str | None:
    entered_us = await resident_since_us(manager, model_id, "ActiveEnterTimestamp")
    if entered_us is None:
        return None
    return datetime.fromtimestamp(entered_us / 1_000_000, UTC).isoformat(timespec="milliseconds")


def exposed_urls() -> dict[str, str]:
    """Return the URLs of exposed models by id, from files that systemd removes with the tunnels' units."""
    urls = {}
    for file in sorted(tunnels_dir().glob("*/url")):
        with suppress(FileNotFoundError):  # closed just now
            urls[file.parent.name] = file.read_text("utf-8").strip()
    return urls


async def read_sleeping(
    manager: Manager, reader: MachineReader, model_id: str, wakes: Mapping[str, float] = MappingProxyType({})
) -> Sleeping:
    """Read a model that is asleep; `wakes` are the seconds that wakes take, by model."""
    service = await manager.service(engine_unit(model_id))
    # The unit's memory by the kernel; the largest number means that it does not count.
    current = int(service["MemoryCurrent"])
    ram_bytes = await reader.call(resident_bytes, int(service["MainPID"])) if current == _NOT_SET else current
    return Sleeping(model_id, level=asleep_level(model_id), ram_bytes=ram_bytes, wake_seconds=wakes.get(model_id))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants; memory that they share counts more than once."""
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


async def _starting(manager: Manager, model_id: str, loads: Mapping[str, float]) -> Starting:
    began_us = int((await manager.unit(engine_unit(model_id)))["InactiveExitTimestampMonotonic"])
    seconds = time.clock_gettime(time.CLOCK_MONOTONIC) - began_us / 1_000_000 if began_us else 0.0
    return Starting(model_id, seconds=max(0.0, seconds), expected_seconds=loads.get(model_id))


async def read_failed(manager: Manager, model_id: str) -> Failed:
    """Read a model that has failed."""
    service = await manager.service(engine_unit(model_id))
    return Failed(model_id, reason=how_it_ended(str(service["Result"]), int(service["ExecMainStatus"])))


def how_it_ended(result: str, status: int) -> str:
    """Put a service's `Result` and `ExecMainStatus` into words."""
    match result:
        case "success":
            return "the engine ended by itself, with status 0"
        case "exit-code":
            return f"the engine ended with status {status}" if status else "it was not ready in time"
        case "signal" | "core-dump":
            return f"the engine was killed by signal {status}"
        case "oom-kill":
            return "the engine was killed for lack of memory"
        case "timeout":
            return "it was not ready in time"
        case "start-limit-hit":
            return "it failed too often in a row"
        case "resources":
            return "systemd could not start it"
        case _:
            return f"its start ended with {result!r}"


_NOT_SET = 2**64 - 1
_ON_THEIR_WAY = (Residency.STARTING, Residency.RESIDENT)  # restored already, or about to be

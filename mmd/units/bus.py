"""The systemd user manager over D-Bus: units and jobs, without policy.

Units are started and stopped by jobs only, and only the result of a job counts: the state of a unit that is read
meanwhile does not show how the job will end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mmd.errors import ManagerUnreachable, MmdError
from mmd.paths import user_runtime_dir
from mmd.units.bus_errors import ManagerAway, NoSuchUnit, NoSuchUnitFile, bus_error
from mmd.units.names import PATTERNS, object_path, split, split_lease, unit_of

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

    from mmd.units.spec import UnitSpec

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_REPLY_SECONDS = 30.0
_JOB_CHECK_SECONDS = 2.0
_RETRY_SECONDS = 0.02

_log = logging.getLogger(__name__)


class JobResult(StrEnum):
    """How a job ended, in systemd's words."""

    DONE = "done"
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    FAILED = "failed"
    DEPENDENCY = "dependency"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"  # a result that a newer systemd added

    @classmethod
    def _missing_(cls, value: object) -> JobResult:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Unit:
    """One row of ListUnits."""

    name: str
    load_state: str
    active_state: str
    sub_state: str
    job: str  # "start", "stop", "restart", …; "" if none is queued
    description: str = ""


class Manager:
    """A connection to the user manager. Use it as an async context manager."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._jobs: set[UnitJob] = set()
        self._listeners: list[Callable[[str], None]] = []

    @classmethod
    async def connect(cls) -> Manager:
        """Connect, and subscribe to job results before any job can be submitted. Raises ManagerUnreachable."""
        from dbus_fast.aio import MessageBus

        address = bus_address()
        try:
            # For leases; it costs 4 µs a call.
            bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
        except (OSError, EOFError, ValueError) as error:
            raise _unreachable(address, error) from error
        manager = cls(bus)
        bus.add_message_handler(manager._on_message)
        try:
            await manager._match(f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}'")
            await manager._call("Subscribe")
        except MmdError as error:
            bus.disconnect()
            raise _unreachable(address, error) from error
        return manager

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.disconnect()

    # -- reading state

    async def units(self, patterns: Sequence[str] = PATTERNS) -> tuple[Unit, ...]:
        """Return the loaded units whose names match, including inactive ones."""
        (rows,) = await self._read(
            _MANAGER, "ListUnitsByPatterns", "asas", [[], list(patterns)], "/org/freedesktop/systemd1"
        )
        return tuple(Unit(row[0], row[2], row[3], row[4], row[8], row[1]) for row in rows)

    async def manager_properties(self) -> dict[str, Any]:
        """Return the properties of the manager: `Version`, `ControlGroup`, …"""
        (values,) = await self._read(_PROPERTIES, "GetAll", "s", [_MANAGER], "/org/freedesktop/systemd1")
        return {key: variant.value for key, variant in values.items()}

    async def unit(self, name: str) -> dict[str, Any]:
        """Return the properties that all units have: `ActiveState`, `InactiveExitTimestampMonotonic`, `Job`, …"""
        return await self._properties(name, "org.freedesktop.systemd1.Unit")

    async def service(self, name: str) -> dict[str, Any]:
        """Return the properties that only services have: `Result`, `ExecMainStatus`, `MainPID`, `Environment`, …"""
        return await self._properties(name, "org.freedesktop.systemd1.Service")

    async def commands(self, name: str, directive: str) -> tuple[tuple[str, ...], ...]:
        """Return the command lines of a service, for example of `ExecStopPost`. Ten times faster than `service`.

        Raises NoSuchUnit.
        """
        body = ["org.freedesktop.systemd1.Service", directive]
        (rows,) = await self._read(_PROPERTIES, "Get", "ss", body, object_path(name))
        # in commands on D-Bus, each `$` is doubled
        return tuple(tuple(word.replace("$$", "$") for word in row[1]) for row in rows.value)

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a socket unit, active or not: HOST:PORT, or the path of a Unix socket."""
        body = ["org.freedesktop.systemd1.Socket", "Listen"]
        (rows,) = await self._read(_PROPERTIES, "Get", "ss", body, object_path(name))
        return tuple(address for _, address in rows.value)

    async def unit_file_state(self, name: str) -> str:
        """Return `enabled`, `disabled`, `masked`, … as the files on disk say now; "" without a unit file."""
        try:
            (state,) = await self._read(_MANAGER, "GetUnitFileState", "s", [name], "/org/freedesktop/systemd1")
        except NoSuchUnitFile:
            return ""
        return str(state)

    async def queued_job(self, unit: str) -> str:
        """Return the object path of the job queued on a unit, or ""."""
        try:
            (variant,) = await self._read(
                _PROPERTIES, "Get", "ss", ["org.freedesktop.systemd1.Unit", "Job"], object_path(unit)
            )
        except NoSuchUnit:
            return ""
        number, path = variant.value
        return str(path) if number else ""

    # -- changing state

    async def start_transient(self, unit: UnitSpec, *beside: UnitSpec, descriptors: Sequence[int] = ()) -> None:
        """Create and start a unit. The units `beside` it are created in the same transaction, and start if it needs
        them. `descriptors` are those that `Descriptor` directives mean; the caller closes them.

        Raises UnitExists if a unit with one of the names is still loaded.
        """
        others = [[spec.name, dbus_properties(spec)] for spec in beside]
        body = [unit.name, "replace", dbus_properties(unit), others]
        await self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body, descriptors)

    async def start(self, name: str) -> None:
        await self._call("StartUnit", "ss", [name, "replace"])

    async def stop(self, name: str) -> None:
        """Stop a unit if it is loaded."""
        with suppress(NoSuchUnit):
            await self._call("StopUnit", "ss", [name, "replace"])

    async def try_restart(self, name: str) -> None:
        """Restart a unit if it is running."""
        await self._call("TryRestartUnit", "ss", [name, "replace"])

    async def reset_failed(self, name: str) -> None:
        with suppress(NoSuchUnit):
            await self._call("ResetFailedUnit", "s", [name])

    async def reload(self) -> None:
        await self._call("Reload")

    async def enable(self, names: Iterable[str]) -> None:
        await self._call("EnableUnitFiles", "asbb", [list(names), False, True])

    async def disable(self, names: Iterable[str]) -> None:
        await self._call("DisableUnitFiles", "asb", [list(names), False])

    async def submit(self, unit: str, dispatch: Awaitable[None]) -> UnitJob:
        """Await `dispatch`, and return the job that it queued on `unit`.

        The call may name another unit: starting a token also starts its engine.
        """
        job = UnitJob(self, unit)
        self._jobs.add(job)
        try:
            await dispatch
            job.path = await self.queued_job(unit)
        except BaseException:
            self.forget(job)
            raise
        return job

    async def submit_all(self, units: Mapping[str, str], dispatch: Awaitable[None]) -> dict[str, UnitJob]:
        """As `submit`, for a call that queues a job on each of several units. Return the jobs by key."""
        jobs = {key: UnitJob(self, unit) for key, unit in units.items()}
        self._jobs.update(jobs.values())
        try:
            await dispatch
            for key, unit in units.items():
                jobs[key].path = await self.queued_job(unit)
        except BaseException:
            self._jobs.difference_update(jobs.values())
            raise
        return jobs

    async def watch_job(self, unit: str) -> UnitJob:
        """Return the job that is queued on a unit; one that has ended already counts as done."""
        return await self.submit(unit, asyncio.sleep(0))

    def forget(self, job: UnitJob) -> None:
        """Stop passing results to a job: it has ended, or it was not queued."""
        self._jobs.discard(job)

    async def run_job(self, unit: str, dispatch: Awaitable[None]) -> JobResult:
        """Await `dispatch`, and wait for the result of the job that it queued on `unit`."""
        return await (await self.submit(unit, dispatch)).result()

    # -- signals

    async def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the unit's name whenever a property or job of a model's or a lease's unit changes."""
        await self._match(f"type='signal',sender='{_SYSTEMD}',path_namespace='/org/freedesktop/systemd1/unit'")
        self._listeners.append(listener)

    async def closed(self) -> None:
        """Return when the connection has ended for any reason."""
        await disconnected(self._bus)

    def _on_message(self, message: Message) -> None:
        if message.member == "JobRemoved" and message.interface == _MANAGER:
            _, path, unit, result = message.body
            for job in self._jobs:
                job.ended(unit, path, JobResult(result))
            self._notify(unit)
        elif message.member == "PropertiesChanged" and message.path:
            self._notify(unit_of(message.path))

    def _notify(self, unit: str) -> None:
        if split(unit) or split_lease(unit):
            for listener in self._listeners:
                listener(unit)

    # -- D-Bus calls

    async def _properties(self, name: str, interface: str) -> dict[str, Any]:
        (values,) = await self._read(_PROPERTIES, "GetAll", "s", [interface], object_path(name))
        return {key: variant.value for key, variant in values.items()}

    async def _match(self, rule: str) -> None:
        bus = "org.freedesktop.DBus"
        await self._send(bus, "AddMatch", "s", [rule], "/org/freedesktop/DBus", destination=bus)

    async def _call(
        self, member: str, signature: str = "", body: Sequence[Any] = (), descriptors: Sequence[int] = ()
    ) -> list[Any]:
        return await self._send(_MANAGER, member, signature, body, "/org/freedesktop/systemd1", descriptors=descriptors)

    async def _read(self, interface: str, member: str, signature: str, body: Sequence[Any], path: str) -> list[Any]:
        """Make a call that changes nothing, and repeat it while the manager re-executes itself."""
        end = time.monotonic() + _REPLY_SECONDS
        while True:
            try:
                return await self._send(interface, member, signature, body, path)
            except ManagerAway as error:
                if time.monotonic() > end:
                    raise _unreachable(bus_address(), error) from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _send(
        self,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[Any],
        path: str,
        destination: str = _SYSTEMD,
        descriptors: Sequence[int] = (),
    ) -> list[Any]:
        from dbus_fast import Message, MessageType

        message = Message(
            destination, path, interface, member, signature=signature, body=list(body), unix_fds=list(descriptors)
        )
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                reply = await self._bus.call(message)
        except (EOFError, OSError, TimeoutError) as error:
            raise _unreachable(bus_address(), error) from error
        if reply is None:
            raise _unreachable(bus_address(), EOFError("the connection ended"))
        if reply.message_type is MessageType.ERROR:
            name = reply.error_name or ""
            raise bus_error(name, f"{member}: {reply.body[0] if reply.body else name}")
        return reply.body


class UnitJob:
    """A job that was queued on a unit.

    `Manager.submit` makes it before the call that queues the job, because a job may end before that call returns.
    """

    def __init__(self, manager: Manager, unit: str) -> None:
        self.path = ""
        self._manager = manager
        self._unit = unit
        self._results: dict[str, JobResult] = {}
        self._changed = asyncio.Event()

    def ended(self, unit: str, path: str, result: JobResult) -> None:
        if unit == self._unit:
            self._results[path] = result
            self._changed.set()

    async def result(self) -> JobResult:
        """Wait for the job's result. If the job ended before its path was read, it is the unit's latest job."""
        try:
            if not self.path:
                return next(reversed(self._results.values()), JobResult.DONE)
            while self.path not in self._results:
                self._changed.clear()
                try:
                    async with asyncio.timeout(_JOB_CHECK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    # A manager that re-executes itself loses signals, so ask whether the job still exists.
                    if self.path not in self._results and not await self._still_queued():
                        return await self._settled()
            return self._results[self.path]
        finally:
            self._manager.forget(self)

    async def _still_queued(self) -> bool:
        return await self._manager.queued_job(self._unit) == self.path

    async def _settled(self) -> JobResult:
        (unit,) = await self._manager.units([self._unit]) or (None,)
        return JobResult.DONE if unit and unit.active_state == "active" else JobResult.FAILED


async def disconnected(bus: MessageBus) -> None:
    """Return when a connection has ended for any reason."""
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped
    except Exception as error:  # noqa: BLE001 dbus-fast raises errors of many kinds if it cannot read a message
        _log.debug("a D-Bus connection ended: %r", error)


def bus_address() -> str:
    """Return the address of the session bus: from the environment, or else the user manager's default."""
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={user_runtime_dir()}/bus"


def dbus_properties(spec: UnitSpec) -> list[list[Any]]:
    """Return the properties of a unit as D-Bus `a(sv)`."""
    from dbus_fast import Variant

    return [[name, Variant(signature, value)] for name, signature, value in spec.properties()]


def _unreachable(address: str, error: BaseException) -> ManagerUnreachable:
    reason = str(error) or type(error).__name__
    return ManagerUnreachable(
        f"no systemd user manager answers on {address}: {reason}",
        hint="systemctl --user status   # log in as this user, or: loginctl enable-linger $USER",
    )

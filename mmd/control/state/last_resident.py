"""The resident models, recorded on disk so that the next boot can restore them.

The gateway records each change while it runs; without a gateway the commands do. A shutdown stops all units, and must
not empty the record: nothing is recorded once the user manager is stopping. A new user manager starts with no model
resident, so what the last one had moves to `pending` until a boot has tried to restore it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode
from mmd.control.state.residencies import active_of
from mmd.control.state.suspended_models import suspended_models
from mmd.errors import MmdError
from mmd.paths import state_dir
from mmd.plan.residency import STARTS, Pair
from mmd.units.bus import Manager
from mmd.units.bus_errors import NoSuchUnit
from mmd.units.lock import record_lock
from mmd.units.names import BACKS
from mmd.units.watch import Pairs, Watch, read_pairs

_STOPPING = "stopping"  # the manager's SystemState from the moment at which a shutdown is queued

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LastResident:
    """What is or was resident, the active model first."""

    session: str = ""  # the start of the user manager that runs these models; it outlives a re-execution
    models: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()  # of earlier sessions; no boot has tried to restore them yet

    def in_session(self, session: str) -> LastResident:
        """Return the record at the start of a session: whatever ran before is pending."""
        if session == self.session:
            return self
        return LastResident(session, (), _unique((*self.models, *self.pending)))


async def record_resident(manager: Manager) -> None:
    """Record the models that are resident now. Raises MmdError if they cannot be read; a full disk is only logged."""
    async with record_lock():
        models = _unique((*resident_models(await read_pairs(manager)), *await _behind_leases(manager)))
        # Read after the units: if no shutdown is queued now, none has stopped a unit that was read before.
        before, session = await _current(manager)
        if session is not None:
            await _replace(before, replace(before.in_session(session), models=models))


async def pending_models(manager: Manager) -> tuple[str, ...]:
    """Return the models that were resident before this user manager started, and that no boot has tried to restore."""
    async with record_lock():
        before, session = await _current(manager)
        if session is None:
            return ()
        now = before.in_session(session)
        await _replace(before, now)
        return now.pending


async def clear_pending(manager: Manager) -> None:
    """Record that a boot has tried to restore the pending models."""
    async with record_lock():
        before, session = await _current(manager)
        if session is not None:
            await _replace(before, replace(before.in_session(session), pending=()))


async def record_now() -> None:
    """Record what is resident over a new connection, and nothing else: what older sessions had does not count."""
    async with await Manager.connect() as manager:
        await clear_pending(manager)
        await record_resident(manager)


def last_resident() -> tuple[str, ...]:
    """Return the models that the next boot would restore."""
    record = _read()
    return _unique((*record.models, *record.pending))


def resident_models(pairs: Pairs) -> tuple[str, ...]:
    """Return the models that are resident, about to be, or unloaded for a suspend; the active one first.

    A model whose engine has failed counts while its token is held: a GPU that fails takes all engines with it, and the
    user reboots to get them back.
    """
    active = active_of(pairs)
    held = sorted(model_id for model_id, pair in pairs.items() if _is_held(pair))
    return _unique((*([active] if active in held else []), *held, *suspended_models()))


class ResidentRecorder:
    """Records the resident models whenever they change, for as long as the gateway runs."""

    def __init__(self, manager: Manager, watch: Watch) -> None:
        self._manager = manager
        self._watch = watch
        self._changed = asyncio.Event()
        self._recorded: tuple[str, ...] | None = None
        self._changed.set()
        watch.follow(self._changed.set)

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            models = resident_models(self._watch.pairs)
            if models == self._recorded:
                continue
            try:
                await record_resident(self._manager)
                self._recorded = models
            except MmdError as error:  # without its record, a reboot restores older models; nothing else is lost
                _log.warning("the resident models are not recorded: %s", error.message)


def _is_held(pair: Pair) -> bool:
    token = pair.token
    return token.job in STARTS or (token.active in ("active", "activating") and token.job != "stop")


async def _behind_leases(manager: Manager) -> tuple[str, ...]:
    """Return the models that were unloaded for leases: the units that restore them have a command for each."""
    found: list[str] = []
    for unit in await manager.units((BACKS,)):
        with suppress(NoSuchUnit):  # it has just ended
            found += [command[-1] for command in await manager.commands(unit.name, "ExecStart")]
    return tuple(found)


async def _current(manager: Manager) -> tuple[LastResident, str | None]:
    """Return the record and the session; None instead of the session if the user manager is stopping."""
    properties = await manager.manager_properties()
    record = await asyncio.to_thread(_read)
    return record, None if properties["SystemState"] == _STOPPING else str(properties["UserspaceTimestamp"])


async def _replace(before: LastResident, now: LastResident) -> None:
    if now == before:
        return
    try:
        await asyncio.to_thread(write_atomically, _file(), encode(now) + b"\n")
    except OSError as error:
        _log.warning("the resident models cannot be written to %s: %s", _file(), error.strerror)


def _read() -> LastResident:
    try:
        return decode(_file().read_bytes(), LastResident)
    except FileNotFoundError:
        return LastResident()
    except (BadRecord, OSError) as error:
        _log.warning("%s cannot be read and counts as empty: %s", _file(), error)
        return LastResident()


def _file() -> Path:
    return state_dir() / "resident.json"


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))

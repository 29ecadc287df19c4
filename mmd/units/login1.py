"""logind over D-Bus: its signals before and after a suspend, and an inhibitor lock that delays a suspend."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from io import FileIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mmd.errors import MmdError
from mmd.tasks import spawn
from mmd.units.bus import disconnected

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_LOGIND = "org.freedesktop.login1"
_MANAGER = "org.freedesktop.login1.Manager"
_PATH = "/org/freedesktop/login1"
_BUS = "org.freedesktop.DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_REPLY_SECONDS = 10.0
_MICROSECONDS = 1_000_000


class LogindAway(MmdError):
    """logind is not on the system bus."""


class LockRefused(MmdError):
    """logind refuses an inhibitor lock, so it will not delay a suspend."""


class Login1:
    """A connection to logind. Use it as an async context manager."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self._owner = ""  # logind's connection; any other one can send signals that look like its own
        # True before a suspend, False after it, None when the connection has ended.
        self._signals: asyncio.Queue[bool | None] = asyncio.Queue()
        self._closing = spawn("connection to logind", self._until_closed())

    @classmethod
    async def connect(cls) -> Login1:
        """Connect to logind. Raises LogindAway if the system bus or logind does not run."""
        from dbus_fast import BusType
        from dbus_fast.aio import MessageBus

        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        except (OSError, EOFError, ValueError) as error:
            raise _away(f"the system bus does not answer: {_reason(error)}") from error
        login1 = cls(bus)
        bus.add_message_handler(login1._on_message)
        try:
            await login1._match(f"sender='{_LOGIND}',interface='{_MANAGER}',member='PrepareForSleep'")
            await login1._match(f"sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{_LOGIND}'")
            await login1.is_preparing_for_sleep()
            login1._owner = await login1._name_owner()
        except MmdError:
            await login1._close()
            raise
        return login1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def is_preparing_for_sleep(self) -> bool:
        return bool(await self._property("PreparingForSleep"))

    async def max_delay_seconds(self) -> float:
        """Return how long locks delay a suspend: `InhibitDelayMaxSec=` of logind.conf, 5 s by default."""
        return int(await self._property("InhibitDelayMaxUSec")) / _MICROSECONDS

    async def delay_sleep(self, why: str) -> FileIO:
        """Take an inhibitor lock, released by closing it. logind waits for it, at most `max_delay_seconds`.

        Raises LockRefused.
        """
        try:
            reply = await self._call(_MANAGER, "Inhibit", "ssss", ["sleep", "mmd", why, "delay"])
        except _ErrorReply as refusal:
            # logind's policy allows this to all users, but without polkit it obeys root only.
            raise LockRefused(
                f"logind refuses to delay a suspend: {refusal}", hint="sudo apt install polkitd"
            ) from refusal
        descriptor = reply.unix_fds[reply.body[0]]
        os.set_inheritable(descriptor, False)
        return FileIO(descriptor, "w")

    async def sleeps(self) -> AsyncIterator[bool]:
        """Yield whether the machine is about to suspend: now, then True before and False after each suspend.

        A value may be repeated. Ends when logind leaves the bus.
        """
        yield await self.is_preparing_for_sleep()
        while (is_suspending := await self._signals.get()) is not None:
            yield is_suspending

    # -- D-Bus calls

    def _on_message(self, message: Message) -> None:
        if message.member == "PrepareForSleep" and message.interface == _MANAGER and message.sender == self._owner:
            self._signals.put_nowait(bool(message.body[0]))
        elif message.member == "NameOwnerChanged" and message.sender == _BUS and message.body[0] == _LOGIND:
            self._signals.put_nowait(None)

    async def _until_closed(self) -> None:
        await disconnected(self.bus)
        self._signals.put_nowait(None)

    async def _close(self) -> None:
        self.bus.disconnect()
        await self._closing

    async def _property(self, name: str) -> Any:
        try:
            reply = await self._call(_PROPERTIES, "Get", "ss", [_MANAGER, name])
        except _ErrorReply as refusal:
            raise _away(f"logind does not answer: {refusal}") from refusal
        return reply.body[0].value

    async def _match(self, rule: str) -> None:
        await self._call_bus("AddMatch", f"type='signal',{rule}")

    async def _name_owner(self) -> str:
        return str((await self._call_bus("GetNameOwner", _LOGIND)).body[0])

    async def _call_bus(self, member: str, word: str) -> Message:
        try:
            return await self._call(_BUS, member, "s", [word], destination=_BUS, path="/org/freedesktop/DBus")
        except _ErrorReply as refusal:
            raise _away(f"the system bus does not answer: {refusal}") from refusal

    async def _call(
        self,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[Any],
        *,
        destination: str = _LOGIND,
        path: str = _PATH,
    ) -> Message:
        from dbus_fast import Message, MessageFlag, MessageType

        # D-Bus must not start logind for this: while it does not run, it suspends nothing.
        flags = MessageFlag.NO_AUTOSTART
        message = Message(destination, path, interface, member, flags=flags, signature=signature, body=list(body))
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                reply = await self.bus.call(message)
        except (EOFError, OSError, TimeoutError) as error:
            raise _away(f"the connection to logind ended: {_reason(error)}") from error
        if reply is None:
            raise _away("the connection to logind ended")
        if reply.message_type is MessageType.ERROR:
            raise _ErrorReply(reply.body[0] if reply.body else reply.error_name)
        return reply


class _ErrorReply(Exception):
    """The reply to a call is an error."""


def _away(message: str) -> LogindAway:
    return LogindAway(message, hint="systemctl status systemd-logind dbus")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

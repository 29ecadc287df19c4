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
from mmd.units.peer import ErrorReply, Peer, PeerAway

if TYPE_CHECKING:
    from dbus_fast import Message

_LOGIND = "org.freedesktop.login1"
_MANAGER = "org.freedesktop.login1.Manager"
_PATH = "/org/freedesktop/login1"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_MICROSECONDS = 1_000_000


class LogindAway(MmdError):
    """logind is not on the system bus."""


class LockRefused(MmdError):
    """logind refuses an inhibitor lock, so it will not delay a suspend."""


class Login1:
    """A connection to logind. Use it as an async context manager."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._owner = ""
        # True before a suspend, False after it, None when the connection has ended.
        self._signals: asyncio.Queue[bool | None] = asyncio.Queue()
        self._closing = spawn("connection to logind", self._until_closed())

    @classmethod
    async def connect(cls) -> Login1:
        """Connect to logind. Raises LogindAway if the system bus or logind does not run."""
        try:
            peer = await Peer.connect(_LOGIND, _PATH)
        except PeerAway as error:
            raise _away(f"the system bus does not answer: {error}") from error
        login1 = cls(peer)
        peer.bus.add_message_handler(login1._on_message)
        try:
            await login1._begin()
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
        except ErrorReply as refusal:
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

    async def _begin(self) -> None:
        try:
            await self.peer.follow(_MANAGER, "PrepareForSleep")
            await self.is_preparing_for_sleep()
            self._owner = await self.peer.owner()
        except ErrorReply as refusal:
            raise _away(f"the system bus does not answer: {refusal}") from refusal
        except PeerAway as error:
            raise _away(f"the connection to logind ended: {error}") from error

    def _on_message(self, message: Message) -> None:
        if message.member == "PrepareForSleep" and message.interface == _MANAGER and message.sender == self._owner:
            self._signals.put_nowait(bool(message.body[0]))
        elif self.peer.changes_owner(message):
            self._signals.put_nowait(None)

    async def _until_closed(self) -> None:
        await self.peer.closed()
        self._signals.put_nowait(None)

    async def _close(self) -> None:
        self.peer.bus.disconnect()
        await self._closing

    async def _property(self, name: str) -> Any:
        try:
            reply = await self._call(_PROPERTIES, "Get", "ss", [_MANAGER, name])
        except ErrorReply as refusal:
            raise _away(f"logind does not answer: {refusal}") from refusal
        return reply.body[0].value

    async def _call(self, interface: str, member: str, signature: str, body: Sequence[Any]) -> Message:
        try:
            return await self.peer.call(interface, member, signature, body)
        except PeerAway as error:
            raise _away(f"the connection to logind ended: {error}") from error


def _away(message: str) -> LogindAway:
    return LogindAway(message, hint="systemctl status systemd-logind dbus")

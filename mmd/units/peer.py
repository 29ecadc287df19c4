"""A program on a D-Bus: calls to it, and its signals. They do not make D-Bus start the program."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmd.units.bus import disconnected

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_BUS = "org.freedesktop.DBus"
_REPLY_SECONDS = 10.0


class PeerAway(Exception):
    """The bus or the program does not answer. The message is the reason."""


class ErrorReply(Exception):
    """The reply to a call is an error. `name` is its D-Bus name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Peer:
    """One program, by its name on a bus and the path of its one object."""

    def __init__(self, bus: MessageBus, name: str, path: str) -> None:
        self.bus = bus
        self.name = name
        self._path = path

    @classmethod
    async def connect(cls, name: str, path: str, *, address: str | None = None) -> Peer:
        """Connect to the bus at `address`, by default the system bus. The program may be missing.

        Raises PeerAway.
        """
        from dbus_fast import BusType
        from dbus_fast.aio import MessageBus

        kind = BusType.SYSTEM if address is None else BusType.SESSION
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                bus = await MessageBus(address, kind, negotiate_unix_fd=True).connect()
        except (OSError, EOFError, ValueError) as error:
            raise PeerAway(reason(error)) from error
        return cls(bus, name, path)

    async def call(self, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()) -> Message:
        """Call a method of the program and return the reply. Raises PeerAway and ErrorReply."""
        return await self._call(self.name, self._path, interface, member, signature, body)

    async def follow(self, interface: str, *members: str) -> None:
        """Subscribe to these signals of the program, and to changes of the owner of its name."""
        for member in members:
            await self._match(f"sender='{self.name}',interface='{interface}',member='{member}'")
        await self._match(f"sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{self.name}'")

    def changes_owner(self, message: Message) -> bool:
        """Return whether a message says that the program has connected to the bus or disconnected."""
        return message.member == "NameOwnerChanged" and message.sender == _BUS and message.body[0] == self.name

    async def owner(self) -> str:
        """Return the unique name of the program's connection: other connections can send signals that look the same."""
        reply = await self._call(_BUS, "/org/freedesktop/DBus", _BUS, "GetNameOwner", "s", [self.name])
        return str(reply.body[0])

    async def closed(self) -> None:
        """Return when the connection has ended for any reason."""
        await disconnected(self.bus)

    async def _match(self, rule: str) -> None:
        await self._call(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", "s", [f"type='signal',{rule}"])

    async def _call(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: Sequence[Any]
    ) -> Message:
        from dbus_fast import Message, MessageFlag, MessageType

        flags = MessageFlag.NO_AUTOSTART
        message = Message(destination, path, interface, member, flags=flags, signature=signature, body=list(body))
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                reply = await self.bus.call(message)
        except (EOFError, OSError, TimeoutError) as error:
            raise PeerAway(reason(error)) from error
        if reply is None:
            raise PeerAway("the connection ended")
        if reply.message_type is MessageType.ERROR:
            raise ErrorReply(reply.error_name or "", str(reply.body[0] if reply.body else reply.error_name))
        return reply


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

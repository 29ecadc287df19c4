"""GameMode over D-Bus: which games run now. Feral's gamemoded provides it on the session bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mmd.errors import MmdError
from mmd.tasks import spawn
from mmd.units.bus import bus_address
from mmd.units.peer import ErrorReply, Peer, PeerAway

if TYPE_CHECKING:
    from dbus_fast import Message

NAME = "com.feralinteractive.GameMode"
PATH = "/com/feralinteractive/GameMode"
INTERFACE = NAME
_REGISTERED, _UNREGISTERED = "GameRegistered", "GameUnregistered"


class GameModeAway(MmdError):
    """The session bus does not answer. A bus without gamemoded is not an error: then no game is registered."""


class GameMode:
    """The registered games. Use it as an async context manager.

    Each signal causes one more reading of the whole list, so a lost or forged signal changes nothing. When gamemoded
    ends, for any reason, no game is registered any more.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._changed = asyncio.Event()
        self._is_closed = False
        self._closing = spawn("connection to GameMode", self._until_closed())

    @classmethod
    async def connect(cls) -> GameMode:
        """Connect to the session bus, where gamemoded may run later. Raises GameModeAway."""
        try:
            gamemode = cls(await Peer.connect(NAME, PATH, address=bus_address()))
        except PeerAway as error:
            raise _away(str(error)) from error
        gamemode._peer.bus.add_message_handler(gamemode._on_message)
        try:
            await gamemode._peer.follow(INTERFACE, _REGISTERED, _UNREGISTERED)
        except (PeerAway, ErrorReply) as error:
            await gamemode._close()
            raise _away(str(error)) from error
        return gamemode

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def games(self) -> AsyncIterator[tuple[int, ...]]:
        """Yield the process IDs of the registered games: now, and after each change. Ends with the session bus."""
        while not self._is_closed:
            self._changed.clear()
            yield await self._registered()
            await self._changed.wait()

    async def _registered(self) -> tuple[int, ...]:
        try:
            reply = await self._peer.call(INTERFACE, "ListGames")
        except (PeerAway, ErrorReply):  # it does not run, or ends just now
            return ()
        if reply.signature != "a(io)":
            return ()
        return tuple(sorted(pid for pid, _ in reply.body[0]))

    def _on_message(self, message: Message) -> None:
        is_signal = message.interface == INTERFACE and message.member in (_REGISTERED, _UNREGISTERED)
        if is_signal or self._peer.changes_owner(message):
            self._changed.set()

    async def _until_closed(self) -> None:
        await self._peer.closed()
        self._is_closed = True
        self._changed.set()

    async def _close(self) -> None:
        self._peer.bus.disconnect()
        await self._closing


def _away(reason: str) -> GameModeAway:
    return GameModeAway(f"the session bus does not answer: {reason}", hint="systemctl --user status dbus.socket")

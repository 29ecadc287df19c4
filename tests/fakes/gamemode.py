"""A stand-in for Feral's gamemoded on any bus, for what the real one does only by accident: it vanishes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from mmd.units.bus import disconnected
from mmd.units.gamemode import INTERFACE, NAME, PATH


class FakeGameMode:
    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._games: dict[int, str] = {}

    async def register(self, pid: int) -> None:
        self._games[pid] = f"{PATH}/Games/{pid}"
        await self._bus.send(Message.new_signal(PATH, INTERFACE, "GameRegistered", "io", [pid, self._games[pid]]))

    async def unregister(self, pid: int) -> None:
        path = self._games.pop(pid)
        await self._bus.send(Message.new_signal(PATH, INTERFACE, "GameUnregistered", "io", [pid, path]))

    async def vanish(self) -> None:
        """Leave the bus without a word, as a process that is killed."""
        self._bus.disconnect()
        await disconnected(self._bus)

    def answer(self, message: Message) -> Message | None:
        """Respond to calls of gamemoded's methods."""
        if message.message_type is MessageType.METHOD_CALL and message.member == "ListGames":
            return Message.new_method_return(message, "a(io)", [[[pid, path] for pid, path in self._games.items()]])
        return None


@asynccontextmanager
async def fake_gamemode(address: str) -> AsyncIterator[FakeGameMode]:
    bus = await MessageBus(bus_address=address).connect()
    gamemode = FakeGameMode(bus)
    bus.add_message_handler(gamemode.answer)
    await bus.request_name(NAME)
    try:
        yield gamemode
    finally:
        await gamemode.vanish()

"""Which games run, as GameMode says it: the real gamemoded where it is installed, and a fake one that vanishes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus

from mmd.units.gamemode import INTERFACE, PATH, GameMode, GameModeAway
from tests.fakes.gamemode import fake_gamemode
from tests.fakes.login1 import private_bus

_UP_SECONDS = 20.0


@pytest.fixture
def session_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    address = f"unix:path={tmp_path}/bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with private_bus(tmp_path / "bus"):
        yield address


class Seen:
    """The games as `GameMode.games` yields them."""

    def __init__(self) -> None:
        self.now: tuple[int, ...] | None = None
        self._changed = asyncio.Condition()

    async def follow(self, gamemode: GameMode) -> None:
        async for games in gamemode.games():
            async with self._changed:
                self.now = games
                self._changed.notify_all()

    async def until(self, *pids: int) -> None:
        async with asyncio.timeout(_UP_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.now == tuple(sorted(pids)))


@asynccontextmanager
async def followed() -> AsyncIterator[Seen]:
    seen = Seen()
    async with await GameMode.connect() as gamemode:
        following = asyncio.create_task(seen.follow(gamemode))
        await seen.until()
        yield seen
        following.cancel()


async def test_games_come_and_go(session_bus: str) -> None:
    async with followed() as seen, fake_gamemode(session_bus) as gamemode:
        await gamemode.register(4711)
        await seen.until(4711)
        await gamemode.register(12)
        await seen.until(12, 4711)
        await gamemode.unregister(4711)
        await seen.until(12)
        await gamemode.vanish()
        await seen.until()


async def test_games_of_before_are_listed(session_bus: str) -> None:
    async with fake_gamemode(session_bus) as gamemode:
        await gamemode.register(7)
        async with await GameMode.connect() as following:
            assert await anext(following.games()) == (7,)


async def test_forged_signal_registers_no_game(session_bus: str) -> None:
    async with followed() as seen, fake_gamemode(session_bus) as gamemode:
        other = await MessageBus(bus_address=session_bus).connect()
        await other.send(Message.new_signal(PATH, INTERFACE, "GameRegistered", "io", [1, f"{PATH}/Games/1"]))
        await gamemode.register(2)
        await seen.until(2)
        other.disconnect()


async def test_without_a_bus_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(GameModeAway, match="session bus"):
        await GameMode.connect()


async def test_games_end_with_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    with private_bus(tmp_path / "bus") as daemon:
        async with await GameMode.connect() as gamemode:
            games = gamemode.games()
            assert await anext(games) == ()
            daemon.kill()
            assert [one async for one in games] == []


@pytest.mark.skipif(shutil.which("gamemoded") is None, reason="Debian's gamemode is not installed")
async def test_real_gamemoded_is_understood(session_bus: str) -> None:
    async with followed() as seen:
        daemon = await _program("gamemoded")
        await _until_named(session_bus)
        game = await _program("gamemoded", "-r")  # registers itself
        await seen.until(game.pid)
        game.terminate()
        await game.wait()
        daemon.kill()  # sooner than it looks for dead games
        await daemon.wait()
        await seen.until()


async def _program(*words: str) -> asyncio.subprocess.Process:
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet)


async def _until_named(address: str) -> None:
    """Return when the daemon is on the bus."""
    bus = await MessageBus(bus_address=address).connect()
    name = "org.freedesktop.DBus"
    asking = Message(name, "/org/freedesktop/DBus", name, "NameHasOwner", signature="s", body=[INTERFACE])
    async with asyncio.timeout(_UP_SECONDS):
        while True:
            reply = await bus.call(asking)
            if reply is not None and reply.body[0]:
                break
            await asyncio.sleep(0.02)
    bus.disconnect()

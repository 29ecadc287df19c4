"""The lease that the gateway takes while games run, and what it does when GameMode misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mmd.control.lifecycle.lease_plan import GAMES
from mmd.errors import LeaseRefused
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.games import GameWatch
from mmd.gateway.schedule.scheduler import Scheduler
from tests.fakes.gamemode import fake_gamemode
from tests.fakes.login1 import private_bus
from tests.gateway_peer import MemoryModels
from tests.memory_leases import MemoryLeases

_UP_SECONDS = 20.0


@pytest.fixture
def session_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"unix:path={tmp_path}/bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    return address


@asynccontextmanager
async def watched(leases: MemoryLeases) -> AsyncIterator[GameWatch]:
    """Run a watch like that of a gateway; it is cancelled like by a gateway that ends."""
    watch = GameWatch(leases, Scheduler(MemoryModels({}), Limits()))
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_UP_SECONDS):
        while not condition():  # noqa: ASYNC110 another program causes it, so there is nothing to await
            await asyncio.sleep(0.005)


async def test_games_hold_one_lease(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    with private_bus(tmp_path / "bus"):
        async with watched(leases), fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            await until(lambda: GAMES in leases.held)
            assert leases.wishes[0].for_games
            assert "(process 1)" in leases.held[GAMES].program
            await gamemode.register(2)
            await gamemode.unregister(1)
            await asyncio.sleep(0.1)
            assert len(leases.wishes) == 1, "the second game is in the same lease"
            await gamemode.unregister(2)
            await until(lambda: not leases.held)


async def test_games_are_over_when_gamemode_vanishes(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    with private_bus(tmp_path / "bus"):
        async with watched(leases):
            async with fake_gamemode(session_bus) as gamemode:
                await gamemode.register(1)
                await until(lambda: GAMES in leases.held)
                await gamemode.vanish()
                await until(lambda: not leases.held)
            async with fake_gamemode(session_bus) as gamemode:
                await gamemode.register(1)
                await until(lambda: GAMES in leases.held)


async def test_games_are_over_when_the_bus_ends(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    async with watched(leases):
        with private_bus(tmp_path / "bus") as daemon:
            async with fake_gamemode(session_bus) as gamemode:
                await gamemode.register(1)
                await until(lambda: GAMES in leases.held)
                daemon.kill()
                await until(lambda: not leases.held)


async def test_next_gateway_keeps_the_lease_of_a_game(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    with private_bus(tmp_path / "bus"):
        async with fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            async with watched(leases):
                await until(lambda: GAMES in leases.held)
            assert GAMES in leases.held, "the gateway has ended, the game has not"
            async with watched(leases):
                await asyncio.sleep(0.1)
                assert len(leases.wishes) == 1
                await gamemode.unregister(1)
                await until(lambda: not leases.held)


async def test_next_gateway_ends_the_lease_of_a_game_that_is_over(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    with private_bus(tmp_path / "bus"):
        async with fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            async with watched(leases):
                await until(lambda: GAMES in leases.held)
        async with watched(leases):
            await until(lambda: not leases.held)


async def test_short_game_takes_no_lease_later(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases(gate=asyncio.Event())
    assert leases.gate is not None
    with private_bus(tmp_path / "bus"):
        async with watched(leases), fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            await asyncio.sleep(0.1)
            await gamemode.unregister(1)
            await asyncio.sleep(0.1)
            leases.gate.set()
            await asyncio.sleep(0.1)
            assert not leases.held


async def test_lease_that_a_user_ended_is_not_taken_again(session_bus: str, tmp_path: Path) -> None:
    leases = MemoryLeases()
    with private_bus(tmp_path / "bus"):
        async with watched(leases), fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            await until(lambda: GAMES in leases.held)
            await leases.end(GAMES)
            await gamemode.register(2)
            await asyncio.sleep(0.1)
            assert not leases.held


async def test_refused_game_changes_nothing(session_bus: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    leases = MemoryLeases(refuses=LeaseRefused("pinned models and leases hold all GPUs", hint="mmd status"))
    with private_bus(tmp_path / "bus"):
        async with watched(leases), fake_gamemode(session_bus) as gamemode:
            await gamemode.register(1)
            await until(lambda: "a game runs, but pinned models and leases hold" in caplog.text)
            assert not leases.held


async def test_gateway_that_ignores_games_ends_their_lease() -> None:
    leases = MemoryLeases()
    watch = GameWatch(leases, Scheduler(MemoryModels({}), Limits()))
    await watch.end()
    from mmd.control.lifecycle.lease import Holder
    from mmd.control.lifecycle.lease_plan import LeaseWish

    await leases.take(LeaseWish(for_games=True), Holder("a game"), leavers=(), drain_seconds=0)
    await watch.end()
    assert not leases.held

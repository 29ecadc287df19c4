"""While a game runs, a lease keeps the memory of all GPUs for it: `[gpu] games = "yield"` in mmd.toml.

GameMode says which games run. systemd keeps the lease: it survives a restart of the gateway, and its end restores the
models that were unloaded for it, even without a gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from mmd.errors import LeaseRefused, MmdError, NoSuchLease
from mmd.gateway.schedule.leases import Leases
from mmd.gateway.schedule.leasing import take_lease
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn
from mmd.units.gamemode import GameMode

# A game takes its memory within seconds of its start; responses that still run then are cut.
_RESPONSES_SECONDS = 10.0
_FIRST_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 300.0

_log = logging.getLogger(__name__)


class GameWatch:
    """Follows GameMode, and takes and ends the lease for games. Owns the one task that does so."""

    def __init__(self, leases: Leases, scheduler: Scheduler) -> None:
        self._leases = leases
        self._scheduler = scheduler
        self._is_playing = False
        self._adjusting: asyncio.Task[None] | None = None
        self._logged = ""

    async def run(self) -> None:
        """Run until cancelled; the lease stays then. Without a session bus, look for it again at growing intervals."""
        retry_seconds = _FIRST_RETRY_SECONDS
        try:
            while True:
                try:
                    async with await GameMode.connect() as gamemode:
                        retry_seconds = _FIRST_RETRY_SECONDS
                        async for games in gamemode.games():
                            await self._follow(games)
                except MmdError as error:
                    self._log_once(f"{error.message}; games do not unload models")
                await self._follow(())  # the bus has ended, so all of its programs have
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _MAX_RETRY_SECONDS)
        finally:
            await self._stop_adjusting()

    async def end(self) -> None:
        """End a lease for games that an earlier gateway has left behind, with other settings."""
        await self._adjust(())

    async def _follow(self, games: Collection[int]) -> None:
        if self._adjusting is not None and bool(games) == self._is_playing:
            return
        await self._stop_adjusting()
        self._is_playing = bool(games)
        self._adjusting = spawn("games", self._adjust(games))

    async def _stop_adjusting(self) -> None:
        if self._adjusting is not None:
            self._adjusting.cancel()
            await asyncio.wait([self._adjusting])

    async def _adjust(self, games: Collection[int]) -> None:
        """Take the lease if there are games, and end it if there are none. Failures are logged."""
        from mmd.control.lifecycle.lease_plan import GAMES

        try:
            is_held = any(lease.name == GAMES for lease in await self._leases.all())
            if games and not is_held:
                await self._take(games)
            elif is_held and not games:
                _log.info("no game runs any more; models may use the GPUs again")
                await self._leases.end(GAMES)
        except NoSuchLease:
            return  # a user has ended it at this moment
        except LeaseRefused as error:
            _log.info("a game runs, but %s", error.message)
        except MmdError as error:
            _log.warning("the lease %s cannot be changed: %s", GAMES, error.message)

    async def _take(self, games: Collection[int]) -> None:
        from mmd.control.lifecycle.lease import Holder
        from mmd.control.lifecycle.lease_plan import LeaseWish

        names = await asyncio.to_thread(lambda: [_name(pid) for pid in games])
        program = f"the game {', '.join(names)}"
        _log.info("GameMode reports %s; unloading models from the GPUs", program)
        wish = LeaseWish(for_games=True)
        await take_lease(self._leases, self._scheduler, wish, Holder(program), limit_seconds=_RESPONSES_SECONDS)

    def _log_once(self, message: str) -> None:
        if message != self._logged:
            self._logged = message
            _log.info("%s", message)


def _name(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text('utf-8').strip()} (process {pid})"
    except (OSError, UnicodeDecodeError):
        return f"process {pid}"

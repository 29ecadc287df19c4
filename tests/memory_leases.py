"""The `Leases` of the gateway in memory, for its tests without systemd."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mmd.control.lifecycle.lease import Holder, Leased
from mmd.control.lifecycle.lease_plan import GAMES, LeaseWish
from mmd.control.state.leases import LeaseStatus
from mmd.errors import MmdError, NoSuchLease, SwapSuperseded, WrongUsage
from mmd.plan.lease import LeaseState, is_valid_name, new_name

_SIZE_BYTES = 4 * 1024**3


@dataclass
class MemoryLeases:
    held: dict[str, LeaseStatus] = field(default_factory=dict)
    unloads: tuple[str, ...] = ()  # what the next lease unloads
    refuses: MmdError | None = None
    needs_more: list[str] = field(default_factory=list)  # models that lie in the way after the first plan
    gate: asyncio.Event | None = None  # a lease begins when it is set
    holders: list[Holder] = field(default_factory=list)
    wishes: list[LeaseWish] = field(default_factory=list)

    async def all(self) -> Sequence[LeaseStatus]:
        return tuple(self.held.values())

    async def leavers(self, wish: LeaseWish, program: str) -> Collection[str]:
        if self.refuses is not None:
            raise self.refuses
        return self.unloads

    async def take(self, wish: LeaseWish, holder: Holder, *, leavers: Collection[str], drain_seconds: float) -> Leased:
        if self.needs_more:
            self.unloads = (*self.unloads, self.needs_more.pop())
            raise SwapSuperseded("it needs the memory of another model now", hint="mmd lease list")
        if self.gate is not None:
            await self.gate.wait()
        name = GAMES if wish.for_games else wish.name or new_name(holder.program.split(" ")[0], self.held)
        if not is_valid_name(name):
            raise WrongUsage(f"{name!r} cannot be the name of a lease", hint="mmd lease --name render -- COMMAND")
        self.wishes.append(wish)
        self.holders.append(holder)
        self.held[name] = LeaseStatus(name, LeaseState.HELD, holder.program, {"GPU-1": _SIZE_BYTES}, None, holder.pid)
        return Leased(name, {"GPU-1": _SIZE_BYTES}, tuple(leavers))

    async def end(self, name: str) -> LeaseStatus:
        if name not in self.held:
            raise NoSuchLease(f"there is no lease {name}", hint="mmd lease list")
        return self.held.pop(name)

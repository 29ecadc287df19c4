"""The protocol by which the gateway takes and ends leases, and its implementation with systemd."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from mmd.control.state.leases import LeaseStatus, read_leases

if TYPE_CHECKING:
    from mmd.control.lifecycle.controller import Controller
    from mmd.control.lifecycle.lease import Holder, Leased
    from mmd.control.lifecycle.lease_plan import LeaseWish
    from mmd.units.watch import Watch


class Leases(Protocol):
    """The leases of this machine: `SystemdLeases` over systemd, a stand-in in tests."""

    async def all(self) -> Sequence[LeaseStatus]: ...

    async def leavers(self, wish: LeaseWish, program: str) -> Collection[str]:
        """Return the models that a lease would unload now. Raises LeaseRefused and WrongUsage."""
        ...

    async def take(self, wish: LeaseWish, holder: Holder, *, leavers: Collection[str], drain_seconds: float) -> Leased:
        """Take a lease. Raises as `leavers`, and SwapSuperseded if it needs the memory of other models than these."""
        ...

    async def end(self, name: str) -> LeaseStatus:
        """End a lease; return what it was. Raises NoSuchLease."""
        ...


class SystemdLeases:
    def __init__(self, controller: Controller, watch: Watch) -> None:
        self._controller = controller
        self._watch = watch

    async def all(self) -> Sequence[LeaseStatus]:
        return await read_leases(self._controller.manager)

    async def leavers(self, wish: LeaseWish, program: str) -> Collection[str]:
        return await (await self._controller.lessor()).leavers(wish, program)

    async def take(self, wish: LeaseWish, holder: Holder, *, leavers: Collection[str], drain_seconds: float) -> Leased:
        await self._watch.refresh()
        staying = [name for name, pair in self._watch.pairs.items() if pair.holds_gpu and name not in leavers]
        lessor = await self._controller.lessor()
        leased = await lessor.take(wish, holder, staying=staying, drain_seconds=drain_seconds)
        await self._watch.refresh()
        return leased

    async def end(self, name: str) -> LeaseStatus:
        ended = await (await self._controller.lessor()).end(name)
        await self._watch.refresh()
        return ended

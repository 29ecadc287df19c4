"""Take leases through the gateway: only it can let running responses finish before their models are unloaded."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import TYPE_CHECKING

from mmd.errors import SwapSuperseded
from mmd.gateway.schedule.leases import Leases
from mmd.gateway.schedule.scheduler import Scheduler

if TYPE_CHECKING:
    from mmd.control.lifecycle.lease import Holder, Leased
    from mmd.control.lifecycle.lease_plan import LeaseWish

# How often a lease is planned again because other models lie in its way when the first ones have answered.
_MAX_PLANS = 4


async def take_lease(
    leases: Leases, scheduler: Scheduler, wish: LeaseWish, holder: Holder, *, limit_seconds: float | None = None
) -> Leased:
    """Take a lease when the models that leave for it have answered the requests that they have.

    They admit no request meanwhile. After `limit_seconds` (None: `gateway.drain_seconds`), or at once with `wish.now`,
    their responses are cut. Raises what `Leases.take` raises.
    """
    for left in reversed(range(_MAX_PLANS)):
        leavers = await leases.leavers(wish, holder.program)
        began = monotonic()

        async def work(leavers: Collection[str] = leavers, began: float = began) -> Leased:
            return await leases.take(wish, holder, leavers=leavers, drain_seconds=monotonic() - began)

        try:
            if not leavers:  # an unload of no model waits for all others
                return await work()
            return await scheduler.drain_for(
                leavers,
                work,
                limit_seconds=0.0 if wish.now else limit_seconds,
                reason=holder.program,
            )
        except SwapSuperseded:
            if not left:
                raise
    raise AssertionError("the last round returns or raises")

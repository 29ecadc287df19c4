"""Take and end leases: memory of a device that another program than a model has for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmd.control.lifecycle.lease_plan import LeasePlan, LeasePlanner, LeaseWish
from mmd.control.lifecycle.missing_hook import kill_if_hook_missing
from mmd.control.lifecycle.phases import monotonic
from mmd.control.lifecycle.placing import EndFirst
from mmd.control.lifecycle.swap_record import SwapSummary, record_swap
from mmd.control.lifecycle.units import (
    LOOK_AGAIN_SECONDS,
    MAX_REFUSALS,
    end_units,
    new_swap_slice,
    read_refusal,
    refusal_file,
)
from mmd.control.state.leases import LeaseStatus, is_held, read_lease
from mmd.errors import LeaseRefused, SwapSuperseded
from mmd.paths import runtime_dir
from mmd.plan.lease import lease_id
from mmd.plan.share import RAM, share_words
from mmd.quantities import MIB
from mmd.units.bus import Manager, UnitJob
from mmd.units.bus_errors import NoSuchUnit, UnitExists
from mmd.units.lease_spec import LeaseUnits, lease_specs
from mmd.units.lock import planner_lock
from mmd.units.names import back_unit, engine_unit, holder_unit, token_unit
from mmd.units.spec import SHARE, Hooks, gate_words, swap_spec
from mmd.units.watch import read_states

if TYPE_CHECKING:
    from mmd.control.lifecycle.planner import LaunchPlanner
    from mmd.control.state.machine_reader import MachineReader

_LOOK_SECONDS = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease hangs on. Without a process, a pipe and a time, it lasts until it is ended."""

    program: str  # for people
    pid: int | None = None
    pipe: int | None = None  # the read end of a pipe whose write end the holder keeps
    seconds: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of hooks/hold.py."""
        pipe = ("pipe",) if self.pipe is not None else ()
        pid = (f"pid={self.pid}",) if self.pid is not None else ()
        return (*pipe, *pid, *((f"seconds={self.seconds}",) if self.seconds is not None else ()))


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease that has begun."""

    name: str
    devices: Mapping[str, int]  # bytes of each
    unloaded: tuple[str, ...] = ()  # the models that were unloaded for it

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that its program gets. CUDA takes the start of a UUID for the GPU, too."""
        gpus = ",".join(device for device in self.devices if device != RAM)
        share = {device: size_bytes // MIB for device, size_bytes in self.devices.items()}
        return {"MMD_LEASE": self.name, SHARE: share_words(share), **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})}


class Lessor:
    """Takes and ends leases over one connection to the user manager. It keeps no state."""

    def __init__(self, manager: Manager, hooks: Hooks, planner: LaunchPlanner, reader: MachineReader) -> None:
        self._manager = manager
        self._hooks = hooks
        self._planner = LeasePlanner(manager, hooks, planner, reader)

    async def leavers(self, wish: LeaseWish, program: str) -> tuple[str, ...]:
        """Return the models that a lease would unload now. Raises what planning raises."""
        async with planner_lock():
            plan = await self._planner.plan(wish, program, await read_states(self._manager))
        return plan.left.evicted if isinstance(plan, LeasePlan) else ()

    async def take(
        self, wish: LeaseWish, holder: Holder, *, staying: Collection[str] = (), drain_seconds: float = 0.0
    ) -> Leased:
        """Take a lease; return when its program may use the memory. The models `staying` are not unloaded for it.

        `drain_seconds` is only recorded. Raises LeaseRefused, WrongUsage, and SwapSuperseded if it needs a model that
        is staying, or was ended before it began.
        """
        began, why = monotonic(), ""
        for _ in range(MAX_REFUSALS):
            plan, job = await self._begin(wish, holder, staying)
            try:
                await job.result()
            except asyncio.CancelledError:
                await self._end_units(plan.name)
                raise
            if is_held(plan.name):
                swap = SwapSummary(began, holder.program, plan.left.evicted, plan.left.why)
                await record_swap(swap, plan.id, "leased", "", {"drain": round(drain_seconds, 4)})
                return _leased(plan)
            if not (why := read_refusal(plan.id)):
                hint = f"journalctl --user -u {holder_unit(plan.name)}   # what ended it"
                raise SwapSuperseded(f"the lease {plan.name} was ended before it began", hint=hint)
            _log.warning("the lease %s was not admitted: %s", plan.name, why)
        raise LeaseRefused(f"the lease was not admitted: {why}", hint="mmd status   # the memory of each device")

    async def end(self, name: str) -> LeaseStatus:
        """End a lease; return what it was, when its memory is free for models. Raises NoSuchLease."""
        lease = await read_lease(self._manager, name)
        await self._end_units(name)
        return lease

    async def _end_units(self, name: str) -> None:
        # Both at once: the stop of the holder stops the token, but only when it has ended.
        units = (holder_unit(name), token_unit(lease_id(name)))
        await asyncio.gather(*(self._manager.run_job(unit, self._manager.stop(unit)) for unit in units))

    async def _begin(self, wish: LeaseWish, holder: Holder, staying: Collection[str]) -> tuple[LeasePlan, UnitJob]:
        """Plan a lease and submit it. Return the job of its holder."""
        end = monotonic() + LOOK_AGAIN_SECONDS
        while True:
            async with planner_lock():
                states = await read_states(self._manager)
                plan = await self._planner.plan(wish, holder.program, states, staying)
                if isinstance(plan, EndFirst):
                    await end_units(self._manager, plan.units)
                else:
                    try:
                        return plan, await self._submit(plan, holder)
                    except asyncio.CancelledError:
                        await self._end_units(plan.name)  # they may have begun
                        raise
                    except (UnitExists, NoSuchUnit) as error:
                        _log.info("units have changed; looking again: %s", error.message)
            if monotonic() > end:
                message = f"models that are being unloaded did not end within {LOOK_AGAIN_SECONDS:.0f} s"
                raise LeaseRefused(message, hint="mmd status   # shows them; end one at once: mmd stop ID")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _submit(self, plan: LeasePlan, holder: Holder) -> UnitJob:
        for model_id in plan.left.tokens:
            await kill_if_hook_missing(self._manager, model_id, self._hooks)
        # An earlier lease of this name may still be restoring; the plan has taken its models over.
        await end_units(self._manager, [back_unit(plan.name)])
        refusal_file(plan.id).unlink(missing_ok=True)
        gate = gate_words(plan.id, runtime_dir(), plan.share, plan.admission, self._hooks)
        pid = (str(holder.pid),) if holder.pid is not None else ()
        specs = lease_specs(
            LeaseUnits(
                name=plan.name,
                share=plan.share,
                description=holder.program,
                gate=(*self._hooks.gate, *gate),
                gone=(*self._hook("lease_released"), *pid),
                hold=(*self._hook("hold"), *holder.words),
                back=(sys.executable, "-P", "-m", "mmd", "activate", "--beside"),
                restores=plan.restores,
                path=os.environ.get("PATH", ""),
                has_pipe=holder.pipe is not None,
            )
        )
        leaving = (*map(token_unit, plan.left.tokens), *map(engine_unit, plan.left.engines))
        swap = swap_spec(new_swap_slice(), (plan.id,), leaving)
        descriptors = (holder.pipe,) if holder.pipe is not None else ()
        begin = self._manager.start_transient(swap, *specs, descriptors=descriptors)
        job = await self._manager.submit(holder_unit(plan.name), begin)
        unloads = "; ".join(f"unloading {one}: {plan.left.why.get(one, '')}" for one in plan.left.evicted)
        _log.info("taking the lease %s for %s%s", plan.name, holder.program, f"; {unloads}" if unloads else "")
        return job

    def _hook(self, name: str) -> tuple[str, ...]:
        """Return the command of a hook that only leases have: it is beside the gate."""
        *python, gate = self._hooks.gate
        return (*python, str(Path(gate).with_name(f"{name}.py")))


def _leased(plan: LeasePlan) -> Leased:
    devices = {device: size_mib * MIB for device, size_mib in plan.share.items()}
    return Leased(plan.name, devices, plan.left.evicted)

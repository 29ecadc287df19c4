"""The routes for leases."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmd.codec import to_builtins
from mmd.errors import MmdError, NoSuchLease, SwapSuperseded, WrongUsage
from mmd.gateway.api.body import encoded, json_object
from mmd.gateway.schedule.leases import Leases
from mmd.gateway.schedule.leasing import take_lease
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn

if TYPE_CHECKING:
    from mmd.control.lifecycle.lease import Holder, Leased
    from mmd.control.lifecycle.lease_plan import LeaseWish
    from mmd.control.state.leases import LeaseStatus

T = TypeVar("T")

_EXAMPLE = """curl -d '{"vram": "10G", "seconds": 600}' http://127.0.0.1:8000/leases"""
_MAX_TEXT_CHARACTERS = 256
_MAX_PID = 2**22


class LeaseRoutes:
    def __init__(self, leases: Leases, scheduler: Scheduler) -> None:
        self._leases = leases
        self._scheduler = scheduler

    def routes(self) -> list[Route]:
        return [
            Route("/leases", self.list, methods=["GET"]),
            Route("/leases", self.take, methods=["POST"]),
            Route("/leases/{name}", self.show, methods=["GET"]),
            Route("/leases/{name}", self.end, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        return encoded(await self._leases.all())

    async def show(self, request: Request) -> Response:
        return encoded(await self._find(request.path_params["name"]))

    async def take(self, request: Request) -> Response:
        body = await json_object(request, _EXAMPLE)
        wish = _wish(body)
        holder = await asyncio.to_thread(_holder, body, is_local=request.client is None)
        try:
            leased = await self._while_connected(request, take_lease(self._leases, self._scheduler, wish, holder))
        finally:
            if holder.pipe is not None:
                os.close(holder.pipe)
        try:
            lease = await self._find(leased.name)
        except NoSuchLease as error:
            raise SwapSuperseded(f"the lease {leased.name} has ended already", hint="mmd events") from error
        record = to_builtins(lease) | {"unloaded": leased.unloaded}
        return encoded(record, 201, {"location": f"/leases/{leased.name}"})

    async def end(self, request: Request) -> Response:
        return encoded(await self._leases.end(request.path_params["name"]))

    async def _find(self, name: str) -> LeaseStatus:
        for lease in await self._leases.all():
            if lease.name == name:
                return lease
        raise NoSuchLease(f"there is no lease {name}", hint="mmd lease list")

    async def _while_connected(self, request: Request, taking: Awaitable[Leased]) -> Leased:
        """Await a lease; give it up if its client disconnects meanwhile, since only the client would end it."""
        work = spawn("lease", _result(taking), logs=False)
        gone = spawn("lease: client", _disconnected(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise SwapSuperseded("the client disconnected while it waited for a lease", hint="mmd lease list")
            leased = work.result()
            if gone.done():
                with suppress(MmdError):
                    await self._leases.end(leased.name)
            return leased
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait((work, gone))


async def _result(taking: Awaitable[Leased]) -> Leased:
    return await taking


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _wish(body: dict[str, Any]) -> LeaseWish:
    from mmd.control.lifecycle.lease_plan import LeaseWish

    gpu = body.get("gpu")
    return LeaseWish(
        name=_text(body, "name"),
        vram=_text(body, "vram"),
        gpu=str(gpu) if type(gpu) is int else _text(body, "gpu"),
        by_user=_flag(body, "unload_pinned"),
        now=_flag(body, "now"),
    )


def _holder(body: dict[str, Any], *, is_local: bool) -> Holder:
    """Return what the lease hangs on; the caller closes its pipe."""
    from mmd.control.lifecycle.lease import Holder

    pid, pipe, seconds = _count(body, "pid"), _count(body, "pipe"), body.get("seconds")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < float("inf")):
        raise WrongUsage('"seconds" must be a positive number', hint=_EXAMPLE)
    if pid is not None and not Path(f"/proc/{pid}").exists():
        raise WrongUsage(f"there is no process {pid} on this machine", hint=_EXAMPLE)
    program = _text(body, "program") or (_command_of(pid) if pid is not None else "a client of the gateway")
    descriptor = None
    if pipe is not None:
        if pid is None or not is_local:
            raise WrongUsage('"pipe" is for mmd lease: a descriptor of the process "pid" of this user', hint=_EXAMPLE)
        descriptor = _open_pipe(pid, pipe)
    return Holder(program, pid, descriptor, seconds)


def _open_pipe(pid: int, number: int) -> int:
    """Open the read end of a pipe that another process of this user has."""
    try:
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WrongUsage(f"the pipe of process {pid} cannot be opened: {error.strerror}", hint=_EXAMPLE) from error
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WrongUsage(f"descriptor {number} of process {pid} is not a pipe", hint=_EXAMPLE)
    return descriptor


def _command_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return f"process {pid}"
    return b" ".join(words).decode("utf-8", "replace") or f"process {pid}"


def _text(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _MAX_TEXT_CHARACTERS):
        raise WrongUsage(f'"{key}" must be a text of at most {_MAX_TEXT_CHARACTERS} characters', hint=_EXAMPLE)
    return value


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise WrongUsage(f'"{key}" must be true or false', hint=_EXAMPLE)
    return value


def _count(body: dict[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is not None and not (type(value) is int and 0 <= value <= _MAX_PID):
        raise WrongUsage(f'"{key}" must be a number', hint=_EXAMPLE)
    return value

"""Who may be asked now, and who waits for a swap.

Models take turns. A request whose model is resident goes straight on while no turn is pending; any other joins its
model's turn, or opens one at the end of the line. So nobody is overtaken: with `a` resident and `b` waited for, later
requests for `a` wait for the turn after `b`'s. One turn is one activation, shared by all who joined it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from time import monotonic

from mmd.errors import EngineFailed
from mmd.gateway.models import Models

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Turn:
    model_id: str
    anew: bool = False  # it is believed resident, but its engine does not accept connections
    waiters: list[asyncio.Future[str]] = field(default_factory=list)


class Switchboard:
    def __init__(self, models: Models, *, drain_seconds: float) -> None:
        self._models = models
        self._drain_seconds = drain_seconds
        self._turns: deque[_Turn] = deque()  # the first one is under way
        self._in_flight: Counter[str] = Counter()
        self._changed = asyncio.Event()  # somebody left
        self._runner: asyncio.Task[None] | None = None

    def admit(self, model_id: str) -> str | None:
        """The address of the model's engine where a request may go on at once; it must `leave` then."""
        if self._turns:
            return None
        address = self._models.address(model_id)
        if address is not None:
            self._in_flight[model_id] += 1
        return address

    async def wait(self, model_id: str, *, anew: bool = False) -> str:
        """As `admit`, after as long as it takes; raises what the model's activation raises."""
        turn = self._turn_of(model_id)
        turn.anew |= anew
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        turn.waiters.append(waiter)
        if self._runner is None:
            self._runner = asyncio.create_task(self._take_turns())
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                turn.waiters.remove(waiter)
                self._changed.set()
            elif waiter.exception() is None:  # let in and gone in the same moment
                self.leave(model_id)
            raise

    def leave(self, model_id: str) -> None:
        self._in_flight[model_id] -= 1
        if not self._in_flight[model_id]:
            del self._in_flight[model_id]
        self._changed.set()

    async def activate(self, model_id: str) -> None:
        """Takes its turn like a request, so that a swap asked for by hand cuts no answer short either."""
        await self.wait(model_id)
        self.leave(model_id)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.cancel()

    def _turn_of(self, model_id: str) -> _Turn:
        for turn in self._turns:
            if turn.model_id == model_id:
                return turn
        turn = _Turn(model_id)
        self._turns.append(turn)
        return turn

    async def _take_turns(self) -> None:
        try:
            while self._turns:
                turn = self._turns[0]
                try:
                    address = await self._make_resident(turn)
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it; they log it
                    self._fail(turn, error)
                else:
                    self._let_in(turn, address)
                self._turns.popleft()
        finally:
            self._runner = None

    async def _make_resident(self, turn: _Turn) -> str | None:
        """The address, or None where nobody waits for it any more."""
        address = self._models.address(turn.model_id)
        if address is not None and not turn.anew:
            return address
        began = monotonic()
        await self._drain(turn)
        if not turn.waiters:
            return None
        await self._models.activate(turn.model_id, drain_seconds=monotonic() - began)
        address = self._models.address(turn.model_id)
        if address is None:
            message = f"{turn.model_id} became ready and was gone at once"
            raise EngineFailed(message, hint=f"mmd logs {turn.model_id}   # see why")
        return address

    async def _drain(self, turn: _Turn) -> None:
        """Lets answers of other models finish, while somebody still wants this one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while turn.waiters and any(model_id != turn.model_id for model_id in self._in_flight):
                    self._changed.clear()
                    await self._changed.wait()
                return
        _log.warning("swapping to %s although answers of %s still run", turn.model_id, ", ".join(self._in_flight))

    def _let_in(self, turn: _Turn, address: str | None) -> None:
        for waiter in turn.waiters:
            if address is not None and not waiter.done():
                self._in_flight[turn.model_id] += 1
                waiter.set_result(address)

    def _fail(self, turn: _Turn, error: Exception) -> None:
        for waiter in turn.waiters:
            if not waiter.done():
                waiter.set_exception(error)

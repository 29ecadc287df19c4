"""One request and its answer: find the model, wait for its turn, ask its engine, see the answer through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Protocol

from mmd.errors import EngineFailed, MmdError
from mmd.gateway.http.error import INTERNAL, Failure
from mmd.gateway.http.error_format import ErrorFormat
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.request import Request
from mmd.gateway.observe.counters import Counters, Cut
from mmd.gateway.proxy.exposed import only, told
from mmd.gateway.proxy.http10 import Http10Rewriter
from mmd.gateway.proxy.model_name import model_in_query
from mmd.gateway.proxy.pool import EngineConnection, Pool
from mmd.gateway.proxy.request_options import RequestOptions, read_wish
from mmd.gateway.proxy.sse import EarlySseStream, wants_stream
from mmd.gateway.proxy.websocket import Tunnel
from mmd.gateway.schedule.idle import Idle
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler

_log = logging.getLogger(__name__)

# By then it is a fight: every time the model was swapped in for this request, somebody took it away again.
_MOST_TAKEN_BACK = 3
_RETRY_CONTESTED_SECONDS = 10


class Client(Protocol):
    """The connection that the request came over."""

    entrance: ListenerKind
    writing_paused: bool
    write: Callable[[bytes], None]

    def finished(self, *, keep_alive: bool) -> None:
        """The answer has been written; the next request may follow."""
        ...

    def join(self, engine: asyncio.Transport) -> Tunnel:
        """Have the client and the engine speak WebSocket with each other."""
        ...

    def cut(self, *, reset: bool) -> None:
        """The answer stays incomplete; `reset` where a plain close would look like its end."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What the exchanges of a gateway have in common."""

    models: Models
    switchboard: Scheduler
    pool: Pool
    limits: Limits
    meter: Counters
    idle: Idle
    asked: set[Exchange] = field(default_factory=set)  # those that an engine works for


class Exchange:
    def __init__(self, shared: Shared, client: Client, request: Request) -> None:
        self._shared = shared
        self._received = monotonic()
        self._client = client
        self._request = request
        self._model_id = ""
        self._keep_seconds: float | None = None  # for so long the model is to stay when this is done
        self._admitted = False  # the switchboard counts us as in flight
        self._retried = False
        self._taken_back = 0
        self._task: asyncio.Task[None] | None = None
        self._connection: EngineConnection | None = None
        self._tunnel: Tunnel | None = None
        self._unchunked = Http10Rewriter() if request.head.is_http10 else None
        self._begun: EarlySseStream | None = None  # the client has been sent the head of a stream
        self._rewriter: Http10Rewriter | EarlySseStream | None = self._unchunked
        self._next_comment: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Without a task where the model is resident and a connection is idle: then nothing has to be waited for."""
        request = self._request
        try:
            wish = _wish(request)
            self._model_id = self._find(wish.model)
            self._keep_seconds = wish.keep_seconds
        except MmdError as error:
            self._refuse(Failure.of(error))
            return
        address = self._shared.switchboard.admit(self._model_id)
        self._admitted = address is not None
        idle = self._shared.pool.take(address) if address is not None else None
        if idle is not None:
            self._ask(idle)
        else:
            self._in_task(partial(self._reach, address))

    def _find(self, name: str | None) -> str:
        models, exposed = self._shared.models, self._request.head.exposed_model
        if exposed is not None:
            return only(exposed, name, models.find)
        return models.find(name, self._client.entrance)

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer has been passed on."""
        if self._begun is not None or self._tunnel is not None:
            return True
        return self._connection is not None and self._connection.answer.begun

    def cancel(self) -> None:
        """The client has gone: leave the line, or let the engine know."""
        if self._tunnel is None:
            self._shared.meter.cut(self._model_id, self._request.head.path, Cut.CLIENT)
        self._shared.asked.discard(self)
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abandon()
            self._let_go()
        self._leave()

    def retract(self) -> bool:
        """To be called when models fall asleep: a request that its engine would leave unanswered is put back in line,
        and the engine drops it. Returns whether it was. An answer that has begun is left to finish.
        """
        if not self._shared.models.is_asleep(self._model_id):
            return False
        if self._tunnel is not None:
            self._tunnel.cut()  # its engine says nothing any more, and would not before it is woken
            return False
        return self._take_back()

    def interrupt(self) -> None:
        """To be called before the machine suspends: the engine is to work no more. A request whose answer has not begun
        is put back in line; the client of another is told that the rest is missing.
        """
        if self._tunnel is not None:
            self._tunnel.cut()
            return
        connection = self._connection
        if connection is not None and not self._take_back():
            self._let_go()
            connection.abandon()
            self._break_off(connection, self._suspended(), Cut.SUSPEND)

    def _take_back(self) -> bool:
        connection = self._connection
        if connection is None or connection.answer.begun:
            return False
        self._let_go()
        connection.abandon()
        self._ask_again()
        return True

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def _in_task(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.create_task(self._at_the_edge(work))

    async def _at_the_edge(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except MmdError as error:
            self._refuse(Failure.of(error))
        except Exception:  # noqa: BLE001 - the edge of a request, logged with its traceback
            _log.exception("request for %s failed", self._model_id)
            self._refuse(INTERNAL)

    async def _reach(self, address: str | None) -> None:
        connection = await self._connect(address)
        # While we were connecting it has gone, or the machine began to suspend, and what was asked is taken back.
        if self._shared.models.address(self._model_id) is None or self._shared.switchboard.is_paused:
            connection.abandon()
            self._ask_again()
            return
        self._task = None
        self._ask(connection)

    def _ask_again(self) -> None:
        """The model was taken away before its engine answered: it is swapped in again when its turn comes."""
        if self._taken_back == _MOST_TAKEN_BACK:
            self._refuse(self._contested())
            return
        self._taken_back += 1
        self._leave()
        self._in_task(partial(self._reach, None))

    async def _connect(self, address: str | None) -> EngineConnection:
        address = address or await self._wait(anew=False)
        try:
            return await self._shared.pool.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            _log.info("%s was believed resident, but its engine accepts no connection", self._model_id)
        except OSError as error:
            raise self._unreachable(error) from error
        self._leave()
        address = await self._wait(anew=True)
        try:
            return await self._shared.pool.connect(address)
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> EngineFailed:
        reason = error.strerror or "it is too busy"
        return EngineFailed(f"{self._model_id} accepts no connection: {reason}", hint=self._hint())

    async def _wait(self, *, anew: bool) -> str:
        delay = self._shared.limits.comment_seconds if self._begun else self._shared.limits.first_comment_seconds
        self._next_comment = asyncio.get_running_loop().call_later(delay, self._comment)
        try:
            with self._shared.meter.waiting(self._model_id):
                address = await self._shared.switchboard.wait(
                    self._model_id, body_bytes=len(self._request.body), anew=anew
                )
        finally:
            self._next_comment.cancel()
        self._admitted = True
        return address

    def _comment(self) -> None:
        """Shows a client that reads a stream that its request is in good hands."""
        if self._begun is None:
            if not wants_stream(self._request):
                return
            self._rewriter = self._begun = EarlySseStream(ErrorFormat.of(self._request.head.path))
            self._client.write(self._begun.begin())
        self._client.write(self._begun.comment(self._model_id, self._shared.switchboard.place(self._model_id)))
        self._next_comment = asyncio.get_running_loop().call_later(self._shared.limits.comment_seconds, self._comment)

    def _ask(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._shared.asked.add(self)
        if self._keep_seconds is not None:
            self._shared.idle.keep(self._model_id, self._keep_seconds)
        head = self._request.head
        connection.ask(self, self._request.for_engine(), has_body=head.answer_has_body, may_switch=head.is_websocket)
        if self._client.writing_paused:
            connection.pause()

    # What the engine's connection calls.

    def relay(self, data: bytes) -> None:
        self._client.write(data if self._rewriter is None else self._rewriter.feed(data))

    def answered(self, *, keep_alive: bool) -> None:
        self._count_answer()
        self._let_go()
        self._leave()
        if self._begun is not None:
            self._client.write(self._begun.end())
        self._client.finished(keep_alive=keep_alive and self._request.head.keep_alive and self._unchunked is None)

    def switched(self, engine: asyncio.Transport, received: bytes) -> None:
        """It stays in flight until the client's connection ends."""
        self._connection = None
        self._shared.meter.ended(self._model_id, self._request.head.path, 101)
        self._client.write(received)
        self._tunnel = self._client.join(engine)

    def lost(self, connection: EngineConnection) -> None:
        self._let_go()
        if connection.answer.begun:
            self._break_off(connection, self._death("in the middle of this answer"), Cut.ENGINE)
        elif connection.reused and not self._retried:
            # Mostly it had timed out there as we wrote to it. An engine that died of this request cannot be told from
            # that, and is asked once more.
            self._retried = True
            self._in_task(partial(self._reach, connection.address))
        else:
            self._in_task(self._after_loss)

    async def _after_loss(self) -> None:
        if self._shared.switchboard.is_paused or await self._shared.models.made_room(self._model_id):
            self._ask_again()
        else:
            self._refuse(self._death("before it answered"))

    def _break_off(self, connection: EngineConnection, failure: Failure, why: Cut) -> None:
        """Makes sure that the client can see that the rest is missing."""
        self._leave()
        self._shared.meter.cut(self._model_id, self._request.head.path, why)
        if self._begun is not None:
            self._client.write(self._begun.event(failure.event()))
            self._client.cut(reset=False)
            return
        answer = connection.answer
        ends_with_connection = self._unchunked is not None or answer.ends_with_connection
        event = failure.event() if answer.is_event_stream else None
        if event is not None and self._unchunked is None:
            event = answer.as_next_piece(event)
        if event is not None:
            self._client.write(event)
        self._client.cut(reset=ends_with_connection and event is None)

    def _death(self, when: str) -> Failure:
        failure = Failure(502, f"{self._model_id} ended {when}", self._hint(), "engine_died", "server_error")
        return failure.said_on(self._request.head.path)

    def _suspended(self) -> Failure:
        message = f"the machine went to sleep in the middle of this answer of {self._model_id}"
        hint = "ask again; for more time before: systemd-analyze cat-config systemd/logind.conf   # InhibitDelayMaxSec="
        return Failure(503, message, hint, "machine_suspends", "server_error").said_on(self._request.head.path)

    def _contested(self) -> Failure:
        message = f"{self._model_id} was swapped away {_MOST_TAKEN_BACK + 1} times before it answered"
        hint = "mmd events   # who else swaps models; send requests for all of them through the gateway"
        retry_after = (("retry-after", str(_RETRY_CONTESTED_SECONDS)),)
        return Failure(503, message, hint, "swap_contested", "server_error", more_headers=retry_after)

    def _hint(self) -> str:
        return f"see why: mmd logs {self._model_id}"

    def _refuse(self, failure: Failure) -> None:
        self._shared.meter.ended(self._model_id, self._request.head.path, failure.status)
        self._task = None
        self._leave()
        keep_alive = self._request.head.keep_alive and self._unchunked is None
        if (exposed := self._request.head.exposed_model) is not None:
            failure = told(exposed, failure)
        failure = failure.said_on(self._request.head.path)
        if self._begun is not None:
            self._client.write(self._begun.failure(failure))
        else:
            self._client.write(failure.response(close=not keep_alive, has_body=self._request.head.answer_has_body))
        self._client.finished(keep_alive=keep_alive)

    def _count_answer(self) -> None:
        assert self._connection is not None
        answer, target = self._connection.answer, self._request.head.target
        self._shared.meter.answered(self._model_id, target, answer.status, self._received, answer.begun_at)

    def _let_go(self) -> None:
        self._connection = None
        self._shared.asked.discard(self)

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._shared.switchboard.leave(self._model_id)


def _wish(request: Request) -> RequestOptions:
    if request.body:
        return read_wish(request.head.value(b"content-type"), request.body)
    return RequestOptions(model_in_query(request.head.target))

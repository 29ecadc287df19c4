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
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.http.error_format import ErrorFormat
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.request import Request
from mmd.gateway.observe.counters import AbortReason, Counters
from mmd.gateway.proxy.exposed import redact_error, resolve_exposed
from mmd.gateway.proxy.http10 import Http10Rewriter
from mmd.gateway.proxy.model_name import model_in_query
from mmd.gateway.proxy.pool import EngineConnection, Pool
from mmd.gateway.proxy.request_options import RequestOptions, parse_options
from mmd.gateway.proxy.sse import EarlySseStream, wants_stream
from mmd.gateway.proxy.websocket import WebSocketTunnel
from mmd.gateway.schedule.idle import Idle
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

# By then it is a fight: every time the model was swapped in for this request, somebody took it away again.
_MAX_REQUEUES = 3
_RETRY_CONTESTED_SECONDS = 10


class ExchangeClient(Protocol):
    """The connection that the request came over."""

    listener_kind: ListenerKind
    writing_paused: bool
    write: Callable[[bytes], None]

    def finished(self, *, keep_alive: bool) -> None:
        """The answer has been written; the next request may follow."""
        ...

    def join_engine(self, engine: asyncio.Transport) -> WebSocketTunnel:
        """Have the client and the engine speak WebSocket with each other."""
        ...

    def terminate(self, *, reset: bool) -> None:
        """The answer stays incomplete; `reset` where a plain close would look like its end."""
        ...


@dataclass(frozen=True, slots=True)
class ExchangeContext:
    """What the exchanges of a gateway have in common."""

    models: Models
    scheduler: Scheduler
    pool: Pool
    limits: Limits
    counters: Counters
    idle: Idle
    with_engine: set[Exchange] = field(default_factory=set)  # those that an engine works for


class Exchange:
    def __init__(self, context: ExchangeContext, client: ExchangeClient, request: Request) -> None:
        self._context = context
        self._received = monotonic()
        self._client = client
        self._request = request
        self._model_id = ""
        self._keep_seconds: float | None = None  # for so long the model is to stay when this is done
        self._admitted = False  # the scheduler counts it as in flight
        self._retried = False
        self._requeues = 0
        self._task: asyncio.Task[None] | None = None
        self._connection: EngineConnection | None = None
        self._tunnel: WebSocketTunnel | None = None
        self._http10 = Http10Rewriter() if request.head.is_http10 else None
        self._early_stream: EarlySseStream | None = None  # the client has been sent the head of a stream
        self._rewriter: Http10Rewriter | EarlySseStream | None = self._http10
        self._next_comment: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Without a task where the model is resident and a connection is idle: then nothing has to be waited for."""
        request = self._request
        try:
            options = _options(request)
            self._model_id = self._find(options.model)
            self._keep_seconds = options.keep_seconds
        except MmdError as error:
            self._refuse(ErrorResponse.of(error))
            return
        address = self._context.scheduler.admit(self._model_id)
        self._admitted = address is not None
        idle = self._context.pool.take(address) if address is not None else None
        if idle is not None:
            self._send(idle)
        else:
            self._in_task(partial(self._connect_and_send, address))

    def _find(self, name: str | None) -> str:
        models, exposed = self._context.models, self._request.head.exposed_model
        if exposed is not None:
            return resolve_exposed(exposed, name, models.find)
        return models.find(name, self._client.listener_kind)

    @property
    def has_started(self) -> bool:
        """Whether a part of the answer has been passed on."""
        if self._early_stream is not None or self._tunnel is not None:
            return True
        return self._connection is not None and self._connection.response.started

    def cancel(self) -> None:
        """The client has gone: leave the line, or let the engine know."""
        if self._tunnel is None:
            self._context.counters.count_aborted(self._model_id, self._request.head.path, AbortReason.CLIENT)
        self._context.with_engine.discard(self)
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abort()
            self._detach()
        self._release()

    def requeue_if_asleep(self) -> bool:
        """To be called when models fall asleep: a request that its engine would leave unanswered is put back in line,
        and the engine drops it. Returns whether it was. An answer that has begun is left to finish.
        """
        if not self._context.models.is_asleep(self._model_id):
            return False
        if self._tunnel is not None:
            self._tunnel.abort()  # its engine says nothing any more, and would not before it is woken
            return False
        return self._requeue()

    def abort_for_suspend(self) -> None:
        """To be called before the machine suspends: the engine is to work no more. A request whose answer has not begun
        is put back in line; the client of another is told that the rest is missing.
        """
        if self._tunnel is not None:
            self._tunnel.abort()
            return
        connection = self._connection
        if connection is not None and not self._requeue():
            self._detach()
            connection.abort()
            self._break_off(connection, self._suspended(), AbortReason.SUSPEND)

    def _requeue(self) -> bool:
        connection = self._connection
        if connection is None or connection.response.started:
            return False
        self._detach()
        connection.abort()
        self._reacquire()
        return True

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def _in_task(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = spawn("request", self._at_the_edge(work))

    async def _at_the_edge(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except MmdError as error:
            self._refuse(ErrorResponse.of(error))
        except Exception:  # noqa: BLE001 - the edge of a request, logged with its traceback
            _log.exception("request for %s failed", self._model_id)
            self._refuse(INTERNAL)

    async def _connect_and_send(self, address: str | None) -> None:
        connection = await self._connect(address)
        # While we were connecting it has gone, or the machine began to suspend, and what was asked is taken back.
        if self._context.models.address(self._model_id) is None or self._context.scheduler.is_paused:
            connection.abort()
            self._reacquire()
            return
        self._task = None
        self._send(connection)

    def _reacquire(self) -> None:
        """The model was taken away before its engine answered: it is swapped in again when its turn comes."""
        if self._requeues == _MAX_REQUEUES:
            self._refuse(self._contested())
            return
        self._requeues += 1
        self._release()
        self._in_task(partial(self._connect_and_send, None))

    async def _connect(self, address: str | None) -> EngineConnection:
        address = address or await self._wait(anew=False)
        try:
            return await self._context.pool.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            _log.info("%s was believed resident, but its engine accepts no connection", self._model_id)
        except OSError as error:
            raise self._unreachable(error) from error
        self._release()
        address = await self._wait(anew=True)
        try:
            return await self._context.pool.connect(address)
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> EngineFailed:
        reason = error.strerror or "it is too busy"
        return EngineFailed(f"{self._model_id} accepts no connection: {reason}", hint=self._hint())

    async def _wait(self, *, anew: bool) -> str:
        delay = (
            self._context.limits.comment_seconds if self._early_stream else self._context.limits.first_comment_seconds
        )
        self._next_comment = asyncio.get_running_loop().call_later(delay, self._comment)
        try:
            with self._context.counters.waiting(self._model_id):
                address = await self._context.scheduler.wait(
                    self._model_id, body_bytes=len(self._request.body), anew=anew
                )
        finally:
            self._next_comment.cancel()
        self._admitted = True
        return address

    def _comment(self) -> None:
        """Shows a client that reads a stream that its request is in good hands."""
        if self._early_stream is None:
            if not wants_stream(self._request):
                return
            self._rewriter = self._early_stream = EarlySseStream(ErrorFormat.of(self._request.head.path))
            self._client.write(self._early_stream.begin())
        self._client.write(self._early_stream.comment(self._model_id, self._context.scheduler.place(self._model_id)))
        self._next_comment = asyncio.get_running_loop().call_later(self._context.limits.comment_seconds, self._comment)

    def _send(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._context.with_engine.add(self)
        if self._keep_seconds is not None:
            self._context.idle.keep(self._model_id, self._keep_seconds)
        head = self._request.head
        connection.send(self, self._request.for_engine(), has_body=head.response_has_body, may_switch=head.is_websocket)
        if self._client.writing_paused:
            connection.pause()

    # What the engine's connection calls.

    def on_data(self, data: bytes) -> None:
        self._client.write(data if self._rewriter is None else self._rewriter.feed(data))

    def on_complete(self, *, keep_alive: bool) -> None:
        self._count_answer()
        self._detach()
        self._release()
        if self._early_stream is not None:
            self._client.write(self._early_stream.end())
        self._client.finished(keep_alive=keep_alive and self._request.head.keep_alive and self._http10 is None)

    def on_upgrade(self, engine: asyncio.Transport, received: bytes) -> None:
        """It stays in flight until the client's connection ends."""
        self._connection = None
        self._context.counters.count(self._model_id, self._request.head.path, 101)
        self._client.write(received)
        self._tunnel = self._client.join_engine(engine)

    def on_lost(self, connection: EngineConnection) -> None:
        self._detach()
        if connection.response.started:
            self._break_off(connection, self._engine_died("in the middle of this answer"), AbortReason.ENGINE)
        elif connection.reused and not self._retried:
            # Mostly it had timed out there as we wrote to it. An engine that died of this request cannot be told from
            # that, and is asked once more.
            self._retried = True
            self._in_task(partial(self._connect_and_send, connection.address))
        else:
            self._in_task(self._after_loss)

    async def _after_loss(self) -> None:
        if self._context.scheduler.is_paused or await self._context.models.made_room(self._model_id):
            self._reacquire()
        else:
            self._refuse(self._engine_died("before it answered"))

    def _break_off(self, connection: EngineConnection, failure: ErrorResponse, why: AbortReason) -> None:
        """Makes sure that the client can see that the rest is missing."""
        self._release()
        self._context.counters.count_aborted(self._model_id, self._request.head.path, why)
        if self._early_stream is not None:
            self._client.write(self._early_stream.event(failure.event()))
            self._client.terminate(reset=False)
            return
        response = connection.response
        ends_with_connection = self._http10 is not None or response.ends_with_connection
        event = failure.event() if response.is_event_stream else None
        if event is not None and self._http10 is None:
            event = response.as_next_piece(event)
        if event is not None:
            self._client.write(event)
        self._client.terminate(reset=ends_with_connection and event is None)

    def _engine_died(self, when: str) -> ErrorResponse:
        failure = ErrorResponse(502, f"{self._model_id} ended {when}", self._hint(), "engine_died", "server_error")
        return failure.for_path(self._request.head.path)

    def _suspended(self) -> ErrorResponse:
        message = f"the machine went to sleep in the middle of this answer of {self._model_id}"
        hint = "ask again; for more time before: systemd-analyze cat-config systemd/logind.conf   # InhibitDelayMaxSec="
        return ErrorResponse(503, message, hint, "machine_suspends", "server_error").for_path(self._request.head.path)

    def _contested(self) -> ErrorResponse:
        message = f"{self._model_id} was swapped away {_MAX_REQUEUES + 1} times before it answered"
        hint = "mmd events   # who else swaps models; send requests for all of them through the gateway"
        retry_after = (("retry-after", str(_RETRY_CONTESTED_SECONDS)),)
        return ErrorResponse(503, message, hint, "swap_contested", "server_error", more_headers=retry_after)

    def _hint(self) -> str:
        return f"see why: mmd logs {self._model_id}"

    def _refuse(self, failure: ErrorResponse) -> None:
        self._context.counters.count(self._model_id, self._request.head.path, failure.status)
        self._task = None
        self._release()
        keep_alive = self._request.head.keep_alive and self._http10 is None
        if (exposed := self._request.head.exposed_model) is not None:
            failure = redact_error(exposed, failure)
        failure = failure.for_path(self._request.head.path)
        if self._early_stream is not None:
            self._client.write(self._early_stream.failure(failure))
        else:
            self._client.write(failure.response(close=not keep_alive, has_body=self._request.head.response_has_body))
        self._client.finished(keep_alive=keep_alive)

    def _count_answer(self) -> None:
        assert self._connection is not None
        response, target = self._connection.response, self._request.head.target
        self._context.counters.count_completed(
            self._model_id, target, response.status, self._received, response.started_at
        )

    def _detach(self) -> None:
        self._connection = None
        self._context.with_engine.discard(self)

    def _release(self) -> None:
        if self._admitted:
            self._admitted = False
            self._context.scheduler.leave(self._model_id)


def _options(request: Request) -> RequestOptions:
    if request.body:
        return parse_options(request.head.value(b"content-type"), request.body)
    return RequestOptions(model_in_query(request.head.target))

"""One request and its response: find the model, wait until it is loaded, send the request, pass the response on.

design.md beside this file has the state machine as a table.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from mmd.errors import MmdError
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.request import Request
from mmd.gateway.observe.counters import AbortReason, Counters
from mmd.gateway.proxy.client_response import ClientResponse, ExchangeClient
from mmd.gateway.proxy.errors import engine_died, engine_unreachable, machine_suspends, swap_contested, swapped_out
from mmd.gateway.proxy.exposed import resolve_exposed
from mmd.gateway.proxy.pool import EngineConnection, Pool
from mmd.gateway.proxy.request_options import request_options
from mmd.gateway.proxy.wait_comments import WaitComments
from mmd.gateway.proxy.websocket import WebSocketTunnel
from mmd.gateway.schedule.events import CutResponses
from mmd.gateway.schedule.idle import IdleUnloader
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.tasks import spawn

_log = logging.getLogger(__name__)

# Beyond this, another program contests the GPU: it unloaded the model each time this request had it loaded.
_MAX_REQUEUES = 3


@dataclass(frozen=True, slots=True)
class ExchangeContext:
    """What all exchanges of a gateway share."""

    models: Models
    scheduler: Scheduler
    pool: Pool
    limits: Limits
    counters: Counters
    idle: IdleUnloader
    with_engine: set[Exchange] = field(default_factory=set)  # whose requests engines are working on


class Exchange:
    """The state of one request, from its last byte to the end of its response.

    The client connection calls `start` once, then `pause`, `resume` and `cancel`; the gateway calls
    `requeue_if_asleep` and `abort_for_suspend`; the engine connection calls the `on_` methods. At any time at most one
    of `_task` (waiting or connecting), `_connection` (with the engine) and `_tunnel` (WebSocket) is set. `_admitted`
    says whether the scheduler counts the request as in flight: each admission is released exactly once.
    """

    def __init__(self, context: ExchangeContext, client: ExchangeClient, request: Request) -> None:
        self._context = context
        self._received_at = monotonic()
        self._client = client
        self._request = request
        self._response = response = ClientResponse(client, request.head)
        self.on_data = response.write  # called by the engine connection for each piece: no call of ours in between
        self._model_id = ""
        self._keep_seconds: float | None = None  # RequestOptions.keep_seconds
        self._admitted = False
        self._retried = False
        self._requeues = 0
        self._task: asyncio.Task[None] | None = None
        self._connection: EngineConnection | None = None
        self._tunnel: WebSocketTunnel | None = None

    def start(self) -> None:
        """Begin to serve the request. Sends it at once, without a task, if its model is resident and a connection to
        the engine is idle. Errors, MmdError included, become responses; nothing is raised for them.
        """
        try:
            options = request_options(self._request)
            self._model_id = self._find(options.model)
            self._keep_seconds = options.keep_seconds
            self._context.models.asked(self._model_id)
        except MmdError as error:
            self._fail(ErrorResponse.of(error))
            return
        address = self._context.scheduler.acquire(self._model_id)
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
        """True if a part of the response has been written."""
        if self._response.early_stream is not None or self._tunnel is not None:
            return True
        return self._connection is not None and self._connection.response.started

    def cancel(self) -> None:
        """The client has closed its connection: leave the queue, or abort the engine's work."""
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
        """Queue the request again if its model has fallen asleep before it responded; returns whether it did.

        A sleeping engine accepts requests and leaves them unanswered. A response that has started is left to finish.
        """
        if not self._context.models.is_asleep(self._model_id):
            return False
        if self._tunnel is not None:
            self._tunnel.abort()  # the engine stays silent, and would even after it is woken
            return False
        return self._requeue()

    @property
    def model_id(self) -> str:
        return self._model_id

    def abort_for_suspend(self) -> None:
        """Stop the engine's work before the machine suspends."""
        self._abort(machine_suspends(self._model_id), AbortReason.SUSPEND, requeues=True)

    def cut(self, cut: CutResponses) -> bool:
        """Stop the engine's work because its model is unloaded; return whether a response was cut."""
        error = swapped_out(self._model_id, cut.reason, cut.limit_seconds)
        return self._abort(error, AbortReason.SWAP, requeues=cut.requeues)

    def _abort(self, error: ErrorResponse, why: AbortReason, *, requeues: bool) -> bool:
        """Stop the engine's work. Queue a request again that has no response so far, if `requeues`; else end its
        response with an error, and return True.
        """
        if self._tunnel is not None:
            self._tunnel.abort()
            return True
        connection = self._connection
        if connection is None or (requeues and self._requeue()):
            return False
        self._detach()
        connection.abort()
        if connection.response.started:
            self._break_off(connection, error, why)
        else:
            self._context.counters.count_aborted(self._model_id, self._request.head.path, why)
            self._release()
            self._response.write_error(error)
        return True

    def pause(self) -> None:
        """The client reads too slowly: stop reading from the engine."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    # -- called by the engine connection; `on_data` is set in __init__

    def on_complete(self, *, keep_alive: bool) -> None:
        self._count_completed()
        self._detach()
        self._release()
        self._response.complete(keep_alive=keep_alive)

    def on_upgrade(self, engine: asyncio.Transport, received: bytes) -> None:
        """The request stays in flight until the client's connection ends."""
        self._connection = None
        self._context.counters.count(self._model_id, self._request.head.path, 101)
        self._response.write(received)
        self._tunnel = self._client.join_engine(engine)

    def on_lost(self, connection: EngineConnection) -> None:
        self._detach()
        if connection.response.started:
            error = engine_died(self._model_id, "in the middle of this response")
            self._break_off(connection, error, AbortReason.ENGINE)
        elif connection.reused and not self._retried:
            # Usually the engine timed out the idle connection just as the request was written. That looks the same as
            # an engine that died of this request, so such a request is sent once more, too.
            self._retried = True
            self._in_task(partial(self._connect_and_send, connection.address))
        else:
            self._in_task(self._after_loss)

    async def _after_loss(self) -> None:
        if self._context.scheduler.is_paused or await self._context.models.was_evicted(self._model_id):
            self._wait_again()
        else:
            self._fail(engine_died(self._model_id, "before it responded"))

    # -- waiting and connecting

    def _in_task(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = spawn("request", self._run(work))

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except MmdError as error:
            self._fail(ErrorResponse.of(error))
        except Exception:  # noqa: BLE001 - the edge of a request, logged with its traceback
            _log.exception("request for %s failed", self._model_id)
            self._fail(INTERNAL)

    async def _connect_and_send(self, address: str | None) -> None:
        """Connect to the engine at this address; with None, wait for the model first."""
        connection = await self._connect(address)
        # The model may have been unloaded while the connection was made, or the machine may be about to suspend.
        if self._context.models.address(self._model_id) is None or self._context.scheduler.is_paused:
            connection.abort()
            self._wait_again()
            return
        self._task = None
        self._send(connection)

    async def _connect(self, address: str | None) -> EngineConnection:
        """Wait and connect. A resident engine that refuses connections has died unnoticed: it is loaded again, once."""
        pool = self._context.pool
        address = address or await self._wait(force_reload=False)
        try:
            return await pool.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            _log.info("%s seemed to be resident, but its engine accepts no connection", self._model_id)
        except OSError as error:
            raise engine_unreachable(self._model_id, error) from error
        self._release()
        address = await self._wait(force_reload=True)
        try:
            return await pool.connect(address)
        except OSError as error:
            raise engine_unreachable(self._model_id, error) from error

    async def _wait(self, *, force_reload: bool) -> str:
        """Wait until the scheduler admits the request; return the engine's address."""
        context, model_id = self._context, self._model_id
        comments = WaitComments(self._request, self._response, model_id, context.scheduler, context.limits)
        with comments, context.counters.waiting(model_id):
            address = await context.scheduler.wait(
                model_id, body_bytes=len(self._request.body), force_reload=force_reload
            )
        self._admitted = True
        return address

    def _send(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._context.with_engine.add(self)
        if self._keep_seconds is not None:
            self._context.idle.keep(self._model_id, self._keep_seconds)
        head = self._request.head
        has_body, may_switch = head.response_has_body, head.is_websocket
        connection.send(self, self._request.for_engine(), has_body=has_body, may_switch=may_switch)
        if self._client.writing_paused:
            connection.pause()

    # -- taking back and ending

    def _requeue(self) -> bool:
        """Take the request back from the engine and wait again, unless the response has started."""
        connection = self._connection
        if connection is None or connection.response.started:
            return False
        self._detach()
        connection.abort()
        self._wait_again()
        return True

    def _wait_again(self) -> None:
        """The model was unloaded before it responded: wait for another turn of it."""
        if self._requeues == _MAX_REQUEUES:
            self._fail(swap_contested(self._model_id, _MAX_REQUEUES + 1))
            return
        self._requeues += 1
        self._release()
        self._in_task(partial(self._connect_and_send, None))

    def _fail(self, error: ErrorResponse) -> None:
        """Respond with an error; no part of an engine's response has been written."""
        self._context.counters.count(self._model_id, self._request.head.path, error.status)
        self._task = None
        self._release()
        self._response.write_error(error)

    def _break_off(self, connection: EngineConnection, error: ErrorResponse, why: AbortReason) -> None:
        """End a response that has started, so that the client can tell that the rest is missing."""
        self._release()
        self._context.counters.count_aborted(self._model_id, self._request.head.path, why)
        self._response.break_off(connection.response, error)

    def _count_completed(self) -> None:
        assert self._connection is not None
        response, target = self._connection.response, self._request.head.target
        counters = self._context.counters
        counters.count_completed(self._model_id, target, response.status, self._received_at, response.started_at)

    def _detach(self) -> None:
        self._connection = None
        self._context.with_engine.discard(self)

    def _release(self) -> None:
        """Tell the scheduler that the request is no longer in flight."""
        if self._admitted:
            self._admitted = False
            self._context.scheduler.release(self._model_id)

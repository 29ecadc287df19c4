"""One request and its answer: find the model, wait for its turn, ask its engine, see the answer through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from mmd.errors import EngineFailed, MmdError
from mmd.gateway.engine import EngineConnection, Pool
from mmd.gateway.failure import INTERNAL, Failure
from mmd.gateway.head import Request
from mmd.gateway.http10 import Unchunked
from mmd.gateway.model_name import named_model
from mmd.gateway.models import Models
from mmd.gateway.switchboard import Switchboard

_log = logging.getLogger(__name__)


class Client(Protocol):
    """The connection that the request came over."""

    writing_paused: bool
    write: Callable[[bytes], None]

    def finished(self, *, keep_alive: bool) -> None:
        """The answer has been written; the next request may follow."""
        ...

    def cut(self, *, reset: bool) -> None:
        """The answer stays incomplete; `reset` where a plain close would look like its end."""
        ...


class Exchange:
    def __init__(self, models: Models, switchboard: Switchboard, pool: Pool, client: Client, request: Request) -> None:
        self._models = models
        self._switchboard = switchboard
        self._pool = pool
        self._client = client
        self._request = request
        self._model_id = ""
        self._admitted = False  # the switchboard counts us as in flight
        self._retried = False
        self._task: asyncio.Task[None] | None = None
        self._connection: EngineConnection | None = None
        self._unchunked = Unchunked() if request.head.is_http10 else None

    def start(self) -> None:
        """Without a task where the model is resident and a connection is idle: then nothing has to be waited for."""
        request = self._request
        try:
            self._model_id = self._models.find(named_model(request.head.value(b"content-type"), request.body))
        except MmdError as error:
            self._refuse(Failure.of(error))
            return
        address = self._switchboard.admit(self._model_id)
        self._admitted = address is not None
        idle = self._pool.take(address) if address is not None else None
        if idle is not None:
            self._ask(idle)
        else:
            self._task = asyncio.create_task(self._reach(address))

    def cancel(self) -> None:
        """The client has gone: leave the line, or let the engine know."""
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abandon()
        self._leave()

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    async def _reach(self, address: str | None) -> None:
        try:
            connection = await self._connect(address)
        except MmdError as error:
            self._refuse(Failure.of(error))
        except Exception:  # noqa: BLE001 - the edge of a request, logged with its traceback
            _log.exception("request for %s failed", self._model_id)
            self._refuse(INTERNAL)
        else:
            self._task = None
            self._ask(connection)

    async def _connect(self, address: str | None) -> EngineConnection:
        address = address or await self._wait(anew=False)
        try:
            return await self._pool.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            _log.info("%s was believed resident, but its engine accepts no connection", self._model_id)
        except OSError as error:
            raise self._unreachable(error) from error
        self._leave()
        address = await self._wait(anew=True)
        try:
            return await self._pool.connect(address)
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> EngineFailed:
        reason = error.strerror or "it is too busy"
        return EngineFailed(f"{self._model_id} accepts no connection: {reason}", hint=self._hint())

    async def _wait(self, *, anew: bool) -> str:
        address = await self._switchboard.wait(self._model_id, anew=anew)
        self._admitted = True
        return address

    def _ask(self, connection: EngineConnection) -> None:
        self._connection = connection
        connection.ask(self, self._request.for_engine(), has_body=self._request.head.method != b"HEAD")
        if self._client.writing_paused:
            connection.pause()

    # What the engine's connection calls.

    def relay(self, data: bytes) -> None:
        self._client.write(data if self._unchunked is None else self._unchunked.feed(data))

    def answered(self, *, keep_alive: bool) -> None:
        self._connection = None
        self._leave()
        self._client.finished(keep_alive=keep_alive and self._request.head.keep_alive and self._unchunked is None)

    def lost(self, connection: EngineConnection) -> None:
        self._connection = None
        if connection.answer.begun:
            self._break_off(connection)
        elif connection.reused and not self._retried:
            # It had timed out there as we wrote to it: the engine has not seen this request.
            self._retried = True
            self._task = asyncio.create_task(self._reach(connection.address))
        else:
            self._refuse(self._death("before it answered"))

    def _break_off(self, connection: EngineConnection) -> None:
        """Makes sure that the client can see that the rest is missing."""
        self._leave()
        answer = connection.answer
        ends_with_connection = self._unchunked is not None or answer.ends_with_connection
        event = self._death("in the middle of this answer").event() if answer.is_event_stream else None
        if event is not None and self._unchunked is None:
            event = answer.as_next_piece(event)
        if event is not None:
            self._client.write(event)
        self._client.cut(reset=ends_with_connection and event is None)

    def _death(self, when: str) -> Failure:
        return Failure(502, f"{self._model_id} ended {when}", self._hint(), "engine_died", "server_error")

    def _hint(self) -> str:
        return f"see why: mmd logs {self._model_id}"

    def _refuse(self, failure: Failure) -> None:
        self._task = None
        self._leave()
        keep_alive = self._request.head.keep_alive and self._unchunked is None
        self._client.write(failure.response(close=not keep_alive))
        self._client.finished(keep_alive=keep_alive)

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._switchboard.leave(self._model_id)

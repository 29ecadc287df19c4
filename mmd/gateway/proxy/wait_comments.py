"""Comments in the stream of a client whose request waits, so that neither it nor a proxy gives up."""

from __future__ import annotations

import asyncio
from types import TracebackType

from mmd.gateway.http.limits import Limits
from mmd.gateway.http.request import Request
from mmd.gateway.proxy.client_response import ClientResponse
from mmd.gateway.proxy.early_sse import wants_stream
from mmd.gateway.schedule.scheduler import Scheduler


class WaitComments:
    """A context manager: writes a comment every `Limits.comment_seconds` while a request waits for its model."""

    def __init__(
        self, request: Request, response: ClientResponse, model_id: str, scheduler: Scheduler, limits: Limits
    ) -> None:
        self._request = request
        self._response = response
        self._model_id = model_id
        self._scheduler = scheduler
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        limits = self._limits
        self._schedule(limits.comment_seconds if self._response.early_stream else limits.first_comment_seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._write)

    def _write(self) -> None:
        if self._response.early_stream is None and not wants_stream(self._request):
            return
        self._response.write_comment(self._model_id, self._scheduler.position(self._model_id))
        self._schedule(self._limits.comment_seconds)

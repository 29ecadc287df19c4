"""The part of the management API that the page uses, with records set by the test; the page itself is the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mmd.gateway.api.web import page_routes
from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.observe.feed import EventKind, Feed
from tests.page import scene

_NOT_FOUND = ErrorResponse(404, "not found", "mmd list", "not_found")
_NO_KEY = ErrorResponse(
    401, "the gateway needs an API key, and the request has none that is valid", "mmd key add NAME", "x"
)


@dataclass
class StubGateway:
    records: dict[str, Any] = field(
        default_factory=lambda: {
            "/status": scene.status(),
            "/models": [*scene.models(), *scene.setups()],
            "/queue": scene.queue(),
            "/resources": scene.resources(),
            "/resources/history": scene.history(),
            "/swaps": scene.swaps(),
            "/hf/downloads": scene.downloads(),
        }
    )
    missing: set[str] = field(default_factory=set)  # paths that an older gateway lacks
    key: str | None = None
    failing: dict[str, ErrorResponse] = field(default_factory=dict)  # the error of a button's verb
    held: dict[str, asyncio.Event] = field(default_factory=dict)  # a verb ends after its event
    pressed: list[tuple[str, str]] = field(default_factory=list)  # the verbs and models of the pressed buttons
    feed: Feed = field(default_factory=Feed)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def tell(self, kind: EventKind, record: Any) -> None:
        """Publish a change."""
        path = f"/{kind}"
        if path in self.records:
            self.records[path] = record
        self.feed.publish(kind, record)

    def tell_download(self, job: dict[str, Any]) -> None:
        self.records["/hf/downloads"] = [
            job if each["id"] == job["id"] else each for each in self.records["/hf/downloads"]
        ]
        self.feed.publish(EventKind.DOWNLOAD, job)

    def hang_up(self) -> None:
        """End the streams, like a gateway that stops; clients may connect again."""
        self.feed.close()

    async def _read(self, request: Request) -> Response:
        return self._objection(request) or JSONResponse(self.records[request.url.path])

    async def _events(self, request: Request) -> Response:
        return self._objection(request) or StreamingResponse(self._told(), media_type="text/event-stream")

    async def _told(self) -> AsyncIterator[str]:
        with self.feed.subscribe() as subscription:
            for kind in (EventKind.STATUS, EventKind.QUEUE, EventKind.RESOURCES):
                yield _event(kind, 0, self.records[f"/{kind}"])
            async for notice in subscription:
                yield _event(notice.kind, notice.number, notice.data)

    async def _cancel(self, request: Request) -> Response:
        job_id = request.path_params["id"]
        self.pressed.append(("cancel", job_id))
        if "cancel" in self.held:
            await self.held["cancel"].wait()
        if "cancel" in self.failing:
            return _refusal(self.failing["cancel"])
        return JSONResponse(
            scene.download(job_id, state="cancelled", rate_bytes_per_second=None, remaining_seconds=None)
        )

    async def _end_lease(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.pressed.append(("end", name))
        if "end" in self.failing:
            return _refusal(self.failing["end"])
        (lease,) = (one for one in self.records["/status"]["leases"] if one["name"] == name)
        return JSONResponse(lease)

    async def _press(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        self.pressed.append((verb, (await request.json())["model"]))
        if verb in self.held:
            await self.held[verb].wait()
        if verb in self.failing:
            return _refusal(self.failing[verb])
        return self._objection(request) or JSONResponse(self.records["/status"])

    def _objection(self, request: Request) -> Response | None:
        if request.url.path in self.missing:
            return _refusal(_NOT_FOUND)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return _refusal(_NO_KEY)
        return None

    def application(self) -> Starlette:
        reading = [Route(path, self._read) for path in self.records]
        others = [
            Route("/events", self._events),
            Route("/models/{verb}", self._press, methods=["POST"]),
            Route("/hf/downloads/{id}", self._cancel, methods=["DELETE"]),
            Route("/leases/{name}", self._end_lease, methods=["DELETE"]),
        ]
        return Starlette(routes=[*page_routes(), *reading, *others])


def _event(kind: EventKind, number: int, record: Any) -> str:
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(record, ensure_ascii=False)}\n\n"


def _refusal(failure: ErrorResponse) -> Response:
    return Response(failure.payload(), failure.status, media_type="application/json")


@asynccontextmanager
async def serving(gateway: StubGateway, port: int = 0) -> AsyncIterator[StubGateway]:
    config = Config(gateway.application(), http="httptools", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    make: Callable[[], asyncio.Protocol] = lambda: HttpToolsProtocol(config, state, {})  # noqa: E731
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    gateway.port = server.sockets[0].getsockname()[1]
    try:
        yield gateway
    finally:
        server.close()
        gateway.hang_up()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)
        for connection in list(state.connections):
            connection.transport.abort()

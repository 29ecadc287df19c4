"""The routes of the management API. Imported with its first request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from mmd.codec import to_builtins
from mmd.control.models.setups import Setup
from mmd.control.state.swap_events import recent
from mmd.control.tunnel.host import exposed_model
from mmd.errors import MmdError, NoSuchModel, WrongUsage
from mmd.gateway.api.body import encoded, json_object
from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.downloads import HfRoutes
from mmd.gateway.api.hub_process import Hub
from mmd.gateway.api.leases import LeaseRoutes
from mmd.gateway.api.openapi import document
from mmd.gateway.api.records import Health, ListedModel, OpenAIModel, OpenAIModels
from mmd.gateway.api.web import page_routes
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.observe.observer import Observer
from mmd.gateway.observe.streams import EventsEndpoint, EventStream, WebSocketStream
from mmd.gateway.observe.text_format import MEDIA_TYPE
from mmd.gateway.proxy.exposed import resolve_exposed
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.queue_status import InFlight
from mmd.gateway.schedule.scheduler import Scheduler
from mmd.gateway.schedule.setups import SetupActions

_DEFAULT_SWAPS = 20
_MAX_SWAPS = 1000


class Routes:
    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler
        self._setups = SetupActions(models, scheduler)

    async def health(self, request: Request) -> Response:
        """Answer pages; `ClientConnection` answers monitors."""
        return encoded(Health())

    async def status(self, request: Request) -> Response:
        return encoded(await self._models.status())

    async def resources(self, request: Request) -> Response:
        return encoded(await self._models.resources())

    async def models(self, request: Request) -> Response:
        """List the models, and after them the setups, whose type is "setup"."""
        models = await self._models.models()
        listed = [ListedModel.of(model, self._idle_seconds(model.id)) for model in models]
        return encoded([*listed, *await self._models.setups()])

    async def openai_models(self, request: Request) -> Response:
        exposed = _exposed(request)
        models = (model for model in await self._models.models() if exposed in (None, model.id))
        return encoded(OpenAIModels("list", tuple(map(OpenAIModel.of, models))))

    async def openai_model(self, request: Request) -> Response:
        name, exposed = request.path_params["name"], _exposed(request)
        model_id = self._models.find(name) if exposed is None else resolve_exposed(exposed, name, self._models.find)
        for model in await self._models.models():
            if model.id == model_id:
                return encoded(OpenAIModel.of(model))
        raise NoSuchModel(f"no model is called {name}", hint="mmd list   # shows the names")

    async def activate(self, request: Request) -> Response:
        return await self._activate(await json_object(request, _EXAMPLE), "model")

    async def switch(self, request: Request) -> Response:
        return await self._activate(await json_object(request, _EXAMPLE), "model_id")

    async def sleep(self, request: Request) -> Response:
        """Put a model to sleep after the running responses, like a swap; with "now", they are cut."""
        body = await json_object(request, _EXAMPLE)
        level, now = _level(body), _flag(body, "now")
        if (setup := self._setup(body)) is not None:
            return await self._done(gone=await self._setups.sleep(setup, level, now=now))
        sleeper = self._optional(body) or self._models.active_model()
        sleepers = (sleeper,) if sleeper is not None else ()
        work = partial(self._models.sleep, sleeper, level)
        gone = await self._scheduler.drain_for(sleepers, work, limit_seconds=0 if now else None)
        return await self._done(gone=gone)

    async def stop(self, request: Request) -> Response:
        body = await json_object(request, _EXAMPLE)
        if (setup := self._setup(body)) is not None:
            await self._setups.stop(setup)
        else:
            await self._models.stop(self._optional(body))
        return await self._done()

    async def queue(self, request: Request) -> Response:
        return encoded(self._scheduler.queue())

    def _idle_seconds(self, model_id: str) -> float | None:
        """Return the time since the model's last response; None if this gateway has seen none."""
        if self._scheduler.is_in_use(model_id):
            return 0.0
        since = self._scheduler.idle_since(model_id)
        return None if since is None else round(monotonic() - since, 3)

    async def _activate(self, body: dict[str, Any], key: str) -> Response:
        """Make a model or a setup resident. With "now", responses of the models that leave are cut, and counted."""
        name, now = _text(body, key), _flag(body, "now")
        if (setup := self._models.setup(name)) is not None:
            return await self._activated(await self._setups.activate(setup, now=now))
        model_id = self._models.find(name)
        cut = await self._scheduler.activate(model_id, now=now)
        self._models.asked(model_id)
        return await self._activated(cut)

    async def _activated(self, cut: Mapping[str, int]) -> Response:
        return await self._done(cut=to_builtins([InFlight(*one) for one in sorted(cut.items())]))

    async def _done(self, **more: object) -> Response:
        """Answer with the status, and that the change is done: a failure is answered with an error."""
        return encoded(to_builtins(await self._models.status()) | {"success": True} | more)

    def _setup(self, body: dict[str, Any]) -> Setup | None:
        return self._models.setup(_text(body, "model")) if body.get("model") is not None else None

    def _optional(self, body: dict[str, Any]) -> str | None:
        return self._models.find(_text(body, "model")) if body.get("model") is not None else None


def application(models: Models, scheduler: Scheduler, observer: Observer, hub: Hub, downloads: Downloads) -> Starlette:
    """Return the application. openapi.OPERATIONS describes each route; a test compares the two."""
    routes = Routes(models, scheduler)
    return Starlette(
        routes=[
            *page_routes(),
            Route("/health", routes.health),
            Route("/status", routes.status),
            Route("/resources", routes.resources),
            Route("/queue", routes.queue),
            Route("/models", routes.models),
            Route("/models/activate", routes.activate, methods=["POST"]),
            Route("/models/sleep", routes.sleep, methods=["POST"]),
            Route("/models/stop", routes.stop, methods=["POST"]),
            Route("/switch", routes.switch, methods=["POST"]),
            *_observer_routes(observer),
            Route("/v1/models", routes.openai_models),
            Route("/v1/models/{name:path}", routes.openai_model),
            *LeaseRoutes(models.leases, scheduler).routes(),
            *HfRoutes(hub, downloads).routes(),
            Route("/openapi.json", _document),
        ],
        # Any origin: the request policy has refused foreign ones. `ClientConnection` answers preflights.
        middleware=[Middleware(CORSMiddleware, allow_origin_regex=".*")],
        exception_handlers={MmdError: _mmd_error, HTTPException: _http_error, Exception: _internal_error},
    )


def _observer_routes(observer: Observer) -> list[BaseRoute]:
    async def metrics(request: Request) -> Response:
        return Response(await observer.metrics.page(), media_type=MEDIA_TYPE)

    async def history(request: Request) -> Response:
        return encoded(observer.history.record())

    async def swaps(request: Request) -> Response:
        limit = _limit(request.query_params.get("limit"))
        return encoded(await asyncio.to_thread(recent, limit))

    return [
        Route("/events", EventsEndpoint(observer.feed, observer.publisher, EventStream), methods=["GET"]),
        WebSocketRoute("/ws", EventsEndpoint(observer.feed, observer.publisher, WebSocketStream)),
        Route("/metrics", metrics),
        Route("/resources/history", history),
        Route("/swaps", swaps),
    ]


def _limit(value: str | None) -> int:
    if value is None:
        return _DEFAULT_SWAPS
    if not (value.isascii() and value.isdecimal() and len(value) <= 4 and 1 <= int(value) <= _MAX_SWAPS):
        message = f"limit must be a number from 1 to {_MAX_SWAPS}, not {value[:20]}"
        raise WrongUsage(message, hint="curl …/swaps?limit=20")
    return int(value)


def _exposed(request: Request) -> str | None:
    """Return the one model that a tunnel may reach, if the request came through a tunnel."""
    return exposed_model(request.headers.get("host", "").encode("latin-1"))


async def _document(request: Request) -> Response:
    return encoded(document())


def _level(body: dict[str, Any]) -> int | None:
    level = body.get("level")
    if level is not None and type(level) is not int:  # a bool is an int, too
        raise WrongUsage('"level" must be a number', hint="mmd sleep ID --level 1   # or 2")
    return level


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise WrongUsage(f'"{key}" must be true or false', hint=_EXAMPLE)
    return value


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise WrongUsage(f'"{key}" must be the name of a model', hint=_EXAMPLE)
    return value


_EXAMPLE = """mmd activate ID   # the same as a body of {"model": "ID"}, for /switch {"model_id": "ID"}"""


async def _mmd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MmdError)
    return _response(ErrorResponse.of(error))


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors: an unknown path, or a method that the path does not have."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    response = _response(ErrorResponse(error.status_code, message, "mmd list   # GET /models has the same", code))
    response.headers.update(error.headers or {})
    return response


async def _internal_error(request: Request, error: Exception) -> Response:
    return _response(INTERNAL)  # starlette raises it again after this, and uvicorn logs it


def _response(failure: ErrorResponse) -> Response:
    return Response(failure.payload(), failure.status, failure.headers(), media_type="application/json")

"""The routes of the management API. Imported with its first request."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mmd.control.tunnel.host import exposed_model
from mmd.errors import MmdError, NoSuchModel, WrongUsage
from mmd.gateway.api import observed
from mmd.gateway.api.body import json_object
from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.downloads import HfRoutes
from mmd.gateway.api.hub_process import Hub
from mmd.gateway.api.openapi import document
from mmd.gateway.api.web import page_routes
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.observe.observer import Observer
from mmd.gateway.proxy.exposed import resolve_exposed
from mmd.gateway.schedule.models import Models
from mmd.gateway.schedule.scheduler import Scheduler


class Routes:
    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler

    async def health(self, request: Request) -> Response:
        """For pages; the front answers monitors."""
        return JSONResponse({"status": "ok"})

    async def status(self, request: Request) -> Response:
        return JSONResponse(await self._models.status())

    async def resources(self, request: Request) -> Response:
        return JSONResponse(await self._models.resources())

    async def models(self, request: Request) -> Response:
        return JSONResponse([record | self._idle(record["id"]) for record in await self._models.models()])

    async def openai_models(self, request: Request) -> Response:
        exposed = _exposed(request)
        records = [record for record in await self._models.models() if exposed in (None, record["id"])]
        return JSONResponse({"object": "list", "data": [_openai(record) for record in records]})

    async def openai_model(self, request: Request) -> Response:
        name, exposed = request.path_params["name"], _exposed(request)
        model_id = self._models.find(name) if exposed is None else resolve_exposed(exposed, name, self._models.find)
        for record in await self._models.models():
            if record["id"] == model_id:
                return JSONResponse(_openai(record))
        raise NoSuchModel(f"no model named {name}", hint="mmd list   # see the names")

    async def activate(self, request: Request) -> Response:
        return await self._activate(_text(await json_object(request, _EXAMPLE), "model"))

    async def switch(self, request: Request) -> Response:
        return await self._activate(_text(await json_object(request, _EXAMPLE), "model_id"))

    async def sleep(self, request: Request) -> Response:
        """After the answers that are under way, as a swap; `stop` waits for nothing."""
        body = await json_object(request, _EXAMPLE)
        model_id, level = self._optional(body), _level(body)
        sleeper = model_id or self._models.gpu_holder()
        gone = await self._scheduler.drain_for(sleeper, partial(self._models.sleep, model_id, level))
        return JSONResponse(await self._models.status() | {"gone": gone})

    async def stop(self, request: Request) -> Response:
        await self._models.stop(self._optional(await json_object(request, _EXAMPLE)))
        return await self.status(request)

    async def queue(self, request: Request) -> Response:
        return JSONResponse(self._scheduler.queue())

    def _idle(self, model_id: str) -> dict[str, float | None]:
        """For how long nobody has asked it, which only the gateway knows; null where it knows of no answer."""
        if self._scheduler.is_in_use(model_id):
            return {"idle_seconds": 0.0}
        since = self._scheduler.idle_since(model_id)
        return {"idle_seconds": None if since is None else round(monotonic() - since, 3)}

    async def _activate(self, name: str) -> Response:
        await self._scheduler.activate(self._models.find(name))
        return JSONResponse(await self._models.status())

    def _optional(self, body: dict[str, Any]) -> str | None:
        return self._models.find(_text(body, "model")) if body.get("model") is not None else None


def application(models: Models, scheduler: Scheduler, observer: Observer, hub: Hub, downloads: Downloads) -> Starlette:
    """A route that is added here is described in openapi.OPERATIONS; a test compares the two."""
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
            *observed.routes(observer),
            Route("/v1/models", routes.openai_models),
            Route("/v1/models/{name:path}", routes.openai_model),
            *HfRoutes(hub, downloads).routes(),
            Route("/openapi.json", _document),
        ],
        # Any origin: the request policy has refused the others. `ClientConnection` answers preflights.
        middleware=[Middleware(CORSMiddleware, allow_origin_regex=".*")],
        exception_handlers={MmdError: _mmd_error, HTTPException: _http_error, Exception: _internal_error},
    )


def _exposed(request: Request) -> str | None:
    """The one model that a tunnel may reach, where one has brought the request."""
    return exposed_model(request.headers.get("host", "").encode("latin-1"))


def _openai(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": record["id"],
        "object": "model",
        "created": 0,
        "owned_by": "mmd",
        "aliases": record["aliases"],
        "status": record["status"],
    }


async def _document(request: Request) -> Response:
    return JSONResponse(document())


def _level(body: dict[str, Any]) -> int | None:
    level = body.get("level")
    if level is not None and type(level) is not int:  # a bool is an int, too
        raise WrongUsage('"level" must be a number', hint="mmd sleep ID --level 1   # or 2")
    return level


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
    """Starlette's own: there is no such path, or not with this method."""
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

"""The routes for those who watch: events, metrics, and what has been."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from mmd.control.state.swap_events import recent
from mmd.errors import WrongUsage
from mmd.gateway.observe.observer import Observer
from mmd.gateway.observe.streams import EventsEndpoint, EventStream, WebSocketStream
from mmd.gateway.observe.text_format import MEDIA_TYPE

_USUAL_SWAPS = 20
_MOST_SWAPS = 1000


def routes(observer: Observer) -> list[BaseRoute]:
    async def metrics(request: Request) -> Response:
        return Response(await observer.metrics.page(), media_type=MEDIA_TYPE)

    async def history(request: Request) -> Response:
        return JSONResponse(observer.history.record())

    return [
        Route("/events", EventsEndpoint(observer.feed, observer.publisher, EventStream), methods=["GET"]),
        WebSocketRoute("/ws", EventsEndpoint(observer.feed, observer.publisher, WebSocketStream)),
        Route("/metrics", metrics),
        Route("/resources/history", history),
        Route("/swaps", _swaps),
    ]


async def _swaps(request: Request) -> Response:
    events = await asyncio.to_thread(recent, _limit(request.query_params.get("limit")))
    return JSONResponse([asdict(event) for event in events])


def _limit(value: str | None) -> int:
    if value is None:
        return _USUAL_SWAPS
    if not (value.isascii() and value.isdecimal() and len(value) <= 4 and 1 <= int(value) <= _MOST_SWAPS):
        raise WrongUsage(f"limit={value[:20]}: a number from 1 to {_MOST_SWAPS}", hint="curl …/swaps?limit=20")
    return int(value)

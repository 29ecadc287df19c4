"""JSON in requests to the management API, and in its responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from mmd.codec import encode
from mmd.errors import WrongUsage

if TYPE_CHECKING:
    from starlette.requests import Request


def encoded(record: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response with a record as JSON."""
    return Response(encode(record), status, headers, media_type="application/json")


async def json_object(request: Request, example: str) -> dict[str, Any]:
    """Return the object in the body, {} for an empty body. Raise WrongUsage with `example` as the hint."""
    raw = await request.body()
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"the body is not JSON: {error}", hint=example) from error
    if not isinstance(body, dict):
        raise WrongUsage("the body is not a JSON object", hint=example)
    return body

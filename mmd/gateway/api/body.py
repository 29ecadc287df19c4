"""The JSON in a request to the management API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mmd.errors import WrongUsage

if TYPE_CHECKING:
    from starlette.requests import Request


async def json_object(request: Request, example: str) -> dict[str, Any]:
    """The object in the body, {} where that is empty; WrongUsage shows how it is done with `example`."""
    raw = await request.body()
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"the body is not JSON: {error}", hint=example) from error
    if not isinstance(body, dict):
        raise WrongUsage("the body is not a JSON object", hint=example)
    return body

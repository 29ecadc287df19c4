"""What a request through a tunnel may reach: /v1 of the one model that the tunnel exposes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mmd.errors import NoSuchModel
from mmd.gateway.http.error import ErrorResponse


def resolve_exposed(exposed: str, name: str | None, find: Callable[[str], str]) -> str:
    """Return the exposed model's id if `name` is None, "" or one of its names.

    Raises NoSuchModel with the same words for a model that exists and one that does not: the remote side must not learn
    which other models there are.
    """
    try:
        if find(name or exposed) == exposed:
            return exposed
    except NoSuchModel:
        pass  # raised below, in words that reveal nothing
    message = f"no model named {name or exposed} is available here"
    raise NoSuchModel(message, hint="GET /v1/models   # shows which one is")


def redact_error(exposed: str, error: ErrorResponse) -> ErrorResponse:
    """Hide an error about the gateway's state: its message may name other models or quote the engine's log."""
    if error.status < 500 and error.status != 409:
        return error
    message, hint = f"{exposed} is not available now", "try again later"
    return replace(error, message=message, hint=hint, code="unavailable", engine_lines=())

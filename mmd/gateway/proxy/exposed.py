"""What may be reached through a tunnel: /v1 of the one model that it exposes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mmd.errors import NoSuchModel
from mmd.gateway.http.error import ErrorResponse


def resolve_exposed(exposed: str, name: str | None, find: Callable[[str], str]) -> str:
    """The id of the exposed model, where a request names it or nobody. Raises NoSuchModel in the same words whether
    there is another of that name or not: the far end is not to learn who else is here.
    """
    try:
        if find(name or exposed) == exposed:
            return exposed
    except NoSuchModel:
        pass  # told below, in words that tell of nobody else
    raise NoSuchModel(f"no model named {name or exposed} is offered here", hint="GET /v1/models   # says which one is")


def redact_error(exposed: str, failure: ErrorResponse) -> ErrorResponse:
    """As the far end may know it: what is wrong here names other models, and says what the engine's journal does."""
    if failure.status < 500 and failure.status != 409:
        return failure
    message, hint = f"{exposed} cannot be had now", "ask again later"
    return replace(failure, message=message, hint=hint, code="unavailable", engine_lines=())

"""What may be reached through a tunnel: /v1 of the one model that it exposes."""

from __future__ import annotations

from collections.abc import Callable

from mmd.errors import NoSuchModel


def only(exposed: str, name: str | None, find: Callable[[str], str]) -> str:
    """The id of the exposed model, where a request names it or nobody. Raises NoSuchModel in the same words whether
    there is another of that name or not: the far end is not to learn who else is here.
    """
    try:
        if find(name or exposed) == exposed:
            return exposed
    except NoSuchModel:
        pass  # told below, in words that tell of nobody else
    raise NoSuchModel(f"no model named {name or exposed} is offered here", hint="GET /v1/models   # says which one is")

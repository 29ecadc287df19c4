"""How the clients of a path expect an error to be worded: OpenAI's, those of its responses, Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

# https://docs.claude.com/en/api/errors; a status that is not listed has the word of its hundred.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ErrorFormat(Enum):
    OPENAI = auto()
    RESPONSES = auto()
    ANTHROPIC = auto()

    @classmethod
    def of(cls, path: bytes) -> ErrorFormat:
        if path == b"/v1/messages" or path.startswith(b"/v1/messages/"):
            return cls.ANTHROPIC
        if path == b"/v1/responses" or path.startswith(b"/v1/responses/"):
            return cls.RESPONSES
        return cls.OPENAI

    def body(self, error: Mapping[str, Any], status: int) -> bytes:
        """The whole body of an answer; `error` in OpenAI's words."""
        if self is ErrorFormat.ANTHROPIC:
            return _json(_anthropic(error, status))
        return _json({"error": error})

    def event(self, error: Mapping[str, Any], status: int) -> bytes:
        """A server-sent event; the empty line before it ends one that an engine has left unfinished."""
        match self:
            case ErrorFormat.OPENAI:
                return b"\n\ndata: %b\n\n" % _json({"error": error})
            case ErrorFormat.RESPONSES:
                return b"\n\nevent: error\ndata: %b\n\n" % _json(_responses_event(error))
            case ErrorFormat.ANTHROPIC:
                return b"\n\nevent: error\ndata: %b\n\n" % _json(_anthropic(error, status))


def _responses_event(error: Mapping[str, Any]) -> dict[str, Any]:
    """As OpenAI documents it, and with the "error" that its Python client looks for before it raises. How many events
    have come before, nobody has counted.
    """
    documented = {"type": "error", "code": error["code"], "message": error["message"], "param": None}
    return documented | {"sequence_number": 0, "error": error}


def _anthropic(error: Mapping[str, Any], status: int) -> dict[str, Any]:
    of_its_hundred = "api_error" if status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {**error, "type": _ANTHROPIC_TYPES.get(status, of_its_hundred)}}


def _json(record: Mapping[str, Any]) -> bytes:
    # The name of a model in a client's JSON may hold half of a surrogate pair, which UTF-8 cannot say.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")

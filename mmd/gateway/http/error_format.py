"""The JSON formats of errors: OpenAI's, that of OpenAI's Responses API, and Anthropic's. The path decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

# https://docs.claude.com/en/api/errors; other statuses get the type of their class (4xx, 5xx).
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
    def for_path(cls, path: bytes) -> ErrorFormat:
        if path == b"/v1/messages" or path.startswith(b"/v1/messages/"):
            return cls.ANTHROPIC
        if path == b"/v1/responses" or path.startswith(b"/v1/responses/"):
            return cls.RESPONSES
        return cls.OPENAI

    def body(self, error: Mapping[str, Any], status: int) -> bytes:
        """Encode the body of a response; `error` is OpenAI's error object."""
        if self is ErrorFormat.ANTHROPIC:
            return _json(_anthropic(error, status))
        return _json({"error": error})

    def event(self, error: Mapping[str, Any], status: int) -> bytes:
        """Encode a server-sent event. The empty lines before it end an event that an engine left unfinished."""
        match self:
            case ErrorFormat.OPENAI:
                return b"\n\ndata: %b\n\n" % _json({"error": error})
            case ErrorFormat.RESPONSES:
                return b"\n\nevent: error\ndata: %b\n\n" % _json(_responses_event(error))
            case ErrorFormat.ANTHROPIC:
                return b"\n\nevent: error\ndata: %b\n\n" % _json(_anthropic(error, status))


def _responses_event(error: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's documented event, plus the "error" key that its Python client needs to raise. The sequence number is
    unknown: the gateway does not count events.
    """
    documented = {"type": "error", "code": error["code"], "message": error["message"], "param": None}
    return documented | {"sequence_number": 0, "error": error}


def _anthropic(error: Mapping[str, Any], status: int) -> dict[str, Any]:
    default = "api_error" if status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {**error, "type": _ANTHROPIC_TYPES.get(status, default)}}


def _json(record: Mapping[str, Any]) -> bytes:
    # A model name from a client's JSON may hold a lone surrogate, which UTF-8 cannot encode.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")

"""What the gateway says where it cannot pass an engine's answer on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from mmd.errors import MmdError, NoSuchModel, outcome
from mmd.gateway.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Failure:
    """One error as a client sees it."""

    status: int
    message: str
    hint: str
    code: str
    type: str = "invalid_request_error"
    dialect: Dialect = Dialect.OPENAI

    @classmethod
    def of(cls, error: MmdError) -> Failure:
        shown = outcome(error)
        return cls(shown.http_status, error.message, error.hint, _code(type(error)), shown.openai_type)

    def said_on(self, path: bytes) -> Failure:
        """As the clients of a path expect it."""
        return replace(self, dialect=Dialect.of(path))

    def payload(self) -> bytes:
        return self.dialect.body(self._error(), self.status)

    def response(self, *, close: bool) -> bytes:
        """A whole HTTP/1.1 response."""
        body = self.payload()
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        return f"{head}connection: close\r\n\r\n".encode() + body if close else f"{head}\r\n".encode() + body

    def event(self) -> bytes:
        return self.dialect.event(self._error(), self.status)

    def _error(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "hint": self.hint,
            "source": "mmd",
        }


def _code(kind: type[MmdError]) -> str:
    if kind is NoSuchModel:
        return "model_not_found"  # what OpenAI's own API says, and clients look for
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


INTERNAL = Failure(
    500,
    "the gateway failed on this request",
    "see why: journalctl --user -u mmd.service -n 50",
    "internal_error",
    "server_error",
)

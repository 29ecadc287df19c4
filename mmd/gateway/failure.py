"""What the gateway says where it cannot pass an engine's answer on, in OpenAI's words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from mmd.errors import MmdError, NoSuchModel, outcome


@dataclass(frozen=True, slots=True)
class Failure:
    """One error as a client sees it."""

    status: int
    message: str
    hint: str
    code: str
    type: str = "invalid_request_error"

    @classmethod
    def of(cls, error: MmdError) -> Failure:
        shown = outcome(error)
        return cls(shown.http_status, error.message, error.hint, _code(type(error)), shown.openai_type)

    def record(self) -> dict[str, str]:
        return {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "hint": self.hint,
            "source": "mmd",
        }

    def payload(self) -> bytes:
        # The name of a model in a client's JSON may hold half of a surrogate pair, which UTF-8 cannot say.
        return json.dumps({"error": self.record()}, ensure_ascii=False).encode("utf-8", "replace")

    def response(self, *, close: bool) -> bytes:
        """A whole HTTP/1.1 response."""
        body = self.payload()
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        return f"{head}connection: close\r\n\r\n".encode() + body if close else f"{head}\r\n".encode() + body

    def event(self) -> bytes:
        """A server-sent event; the empty line before it ends one that an engine has left unfinished."""
        return b"\n\ndata: " + self.payload() + b"\n\n"


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

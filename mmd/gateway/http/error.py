"""What the gateway says where it cannot pass an engine's answer on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from mmd.errors import EngineFailed, MmdError, NoSuchModel, TryLater, outcome
from mmd.gateway.http.error_format import ErrorFormat


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """One error as a client sees it."""

    status: int
    message: str
    hint: str
    code: str
    type: str = "invalid_request_error"
    engine_lines: tuple[str, ...] = ()
    more_headers: tuple[tuple[str, str], ...] = ()
    dialect: ErrorFormat = ErrorFormat.OPENAI

    @classmethod
    def of(cls, error: MmdError) -> ErrorResponse:
        shown = outcome(error)
        return cls(
            shown.http_status,
            error.message,
            error.hint,
            _code(type(error)),
            shown.openai_type,
            engine_lines=error.engine_lines if isinstance(error, EngineFailed) else (),
            more_headers=(("retry-after", str(error.retry_after_seconds)),) if isinstance(error, TryLater) else (),
        )

    def for_path(self, path: bytes) -> ErrorResponse:
        """As the clients of a path expect it."""
        return replace(self, dialect=ErrorFormat.of(path))

    def payload(self) -> bytes:
        return self.dialect.body(self.record(), self.status)

    def response(self, *, close: bool, has_body: bool = True) -> bytes:
        """A whole HTTP/1.1 response; one to HEAD has no body, and its client would take one for the next answer."""
        body = self.payload()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers().items()),
        ]
        if close:
            lines.append("connection: close")
        return "\r\n".join((*lines, "", "")).encode() + (body if has_body else b"")

    def headers(self) -> dict[str, str]:
        return dict(self.more_headers)

    def event(self) -> bytes:
        return self.dialect.event(self.record(), self.status)

    def record(self) -> dict[str, Any]:
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "hint": self.hint,
            "source": "mmd",
        }
        if self.engine_lines:
            error["engine_lines"] = list(self.engine_lines)
        return error


def _code(kind: type[MmdError]) -> str:
    if kind is NoSuchModel:
        return "model_not_found"  # what OpenAI's own API says, and clients look for
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def mmd_error(error: object) -> MmdError | None:
    """What an error in the gateway's answer was raised as; None where it is about the request, not what came of it."""
    if not isinstance(error, dict):
        return None
    # One that is made of more than its two lines, such as that too many wait, speaks to other clients.
    kinds: tuple[type[MmdError], ...] = (
        MmdError,
        *(kind for kind in MmdError.__subclasses__() if "__init__" not in vars(kind)),
    )
    told = next((kind for kind in kinds if _code(kind) == error.get("code")), None)
    return None if told is None else told(str(error.get("message")), hint=str(error.get("hint")))


INTERNAL = ErrorResponse(
    500,
    "the gateway failed on this request",
    "see why: journalctl --user -u mmd.service -n 50",
    "internal_error",
    "server_error",
)

TOO_MANY = ErrorResponse(
    503,
    "the gateway has as many connections as it takes",
    "ss -tnp 'sport = :8000'   # see whose; then try again",
    "too_many_connections",
    "server_error",
    more_headers=(("retry-after", "1"),),  # they come and go faster than models do
)

"""Error responses of the gateway itself, as opposed to errors that engines send."""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from mmd.errors import MmdError, TryLater, outcome, to_record
from mmd.gateway.http.error_format import ErrorFormat


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """One error, as a response or an event, in the format that the client expects."""

    status: int
    message: str
    hint: str
    code: str
    type: str = "invalid_request_error"
    engine_lines: tuple[str, ...] = ()
    more_headers: tuple[tuple[str, str], ...] = ()
    format: ErrorFormat = ErrorFormat.OPENAI

    @classmethod
    def of(cls, error: MmdError) -> ErrorResponse:
        shown, record = outcome(error), to_record(error)
        return cls(
            shown.http_status,
            error.message,
            error.hint,
            record["code"],
            shown.openai_type,
            engine_lines=tuple(record.get("engine_lines", ())),
            more_headers=(("retry-after", str(error.retry_after_seconds)),) if isinstance(error, TryLater) else (),
        )

    def for_path(self, path: bytes) -> ErrorResponse:
        """Return the error in the format of the clients of this path."""
        return replace(self, format=ErrorFormat.for_path(path))

    def payload(self) -> bytes:
        return self.format.body(self.record(), self.status)

    def response(self, *, close: bool, has_body: bool = True) -> bytes:
        """Encode a whole HTTP/1.1 response. `has_body` is False for HEAD, whose client would read a body as the next
        response.
        """
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
        return self.format.event(self.record(), self.status)

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


INTERNAL = ErrorResponse(
    500,
    "the gateway failed to handle this request",
    "journalctl --user -u mmd.service -n 50   # shows why",
    "internal_error",
    "server_error",
)

TOO_MANY = ErrorResponse(
    503,
    "the gateway has reached its limit of connections",
    "ss -tnp 'sport = :8000'   # shows whose they are; then try again",
    "too_many_connections",
    "server_error",
    more_headers=(("retry-after", "1"),),  # connections free up within a second
)

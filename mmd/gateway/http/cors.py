"""Leave for pages of allowed origins to read what the gateway answers them (CORS); a chat in a browser needs it.

Which origins are allowed is decided by the request policy: what comes here has passed it.
"""

from __future__ import annotations

from mmd.gateway.http.request import RequestHead

_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_PREFLIGHT_SECONDS = 600  # until the browser asks again


def cors_headers(origin: bytes) -> tuple[tuple[str, str], ...]:
    """Header lines by which a page of that origin may read an answer; none for b"": no browser asks."""
    if not origin:
        return ()
    return ("access-control-allow-origin", origin.decode("latin-1")), ("vary", "origin")


def preflight_response(head: RequestHead) -> bytes:
    lines = [
        b"HTTP/1.1 204 No Content",
        *_leave(head.origin),
        b"access-control-allow-methods: " + _METHODS,
        b"access-control-max-age: %d" % _PREFLIGHT_SECONDS,
    ]
    if asked := head.value(b"access-control-request-headers"):
        lines.append(b"access-control-allow-headers: " + asked)
    if not head.keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", b""))


def with_cors_headers(answer: bytes, origin: bytes) -> bytes:
    """The beginning of an engine's answer, whose head is complete, with our leave in place of what the engine says:
    a browser that finds two refuses both.
    """
    start = 0
    while answer.startswith(b"HTTP/1.1 1", start) and not answer.startswith(b"101", start + 9):
        start = answer.index(b"\r\n\r\n", start) + 4  # interim: the answer is yet to come
    end = answer.index(b"\r\n\r\n", start)
    lines = answer[start:end].split(b"\r\n")
    kept = [line for line in lines if line[:15].lower() != b"access-control-"]
    return answer[:start] + b"\r\n".join((*kept, *_leave(origin))) + answer[end:]


def _leave(origin: bytes) -> tuple[bytes, ...]:
    return tuple(f"{name}: {value}".encode("latin-1") for name, value in cors_headers(origin))

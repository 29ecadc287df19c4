"""CORS: the headers by which a browser lets a page of another origin read responses, such as a chat in a browser.

The request policy decides which origins are allowed; the requests that reach this module have passed it.
"""

from __future__ import annotations

from mmd.gateway.http.request import RequestHead

_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_PREFLIGHT_SECONDS = 600  # browsers ask again after this


def cors_headers(origin: bytes) -> tuple[tuple[str, str], ...]:
    """Return the headers that let a page of this origin read a response; none for b"", which no browser sends."""
    if not origin:
        return ()
    return ("access-control-allow-origin", origin.decode("latin-1")), ("vary", "origin")


def cors_lines(origin: bytes) -> tuple[bytes, ...]:
    """Return the same as header lines."""
    return tuple(f"{name}: {value}".encode("latin-1") for name, value in cors_headers(origin))


def preflight_response(head: RequestHead) -> bytes:
    """Encode the whole response to a preflight request."""
    lines = [
        b"HTTP/1.1 204 No Content",
        *cors_lines(head.origin),
        b"access-control-allow-methods: " + _METHODS,
        b"access-control-max-age: %d" % _PREFLIGHT_SECONDS,
    ]
    if requested := head.value(b"access-control-request-headers"):
        lines.append(b"access-control-allow-headers: " + requested)
    if not head.keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", b""))

"""Refuse requests by their head alone: by framing, path, sender, API key and size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmd.gateway.http.api_keys import Keyring, Purpose
from mmd.gateway.http.cors import cors_headers
from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import AllowedHosts, is_loopback_address
from mmd.gateway.http.request import RequestHead

# No escapes and no empty, "." or ".." segments: engines may resolve them differently, and outside /v1 they have
# endpoints such as /sleep.
_PLAIN_V1_PATH = re.compile(rb"/v1(?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+,;=:@-]+)+/?")

_OPEN_PATH = b"/health"  # monitors need no key
_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")

# vLLM's; the only endpoints below /v1 of either engine that change what it serves.
_CHANGES_ENGINE = re.compile(rb"/v1/(?:un)?load_lora_adapter/?")


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """The listener that a client connected to, and the address of this machine that it used."""

    kind: ListenerKind
    address: str  # "" for a Unix socket
    is_exposed: bool  # other machines can reach that address

    @classmethod
    def of(cls, kind: ListenerKind, address: str) -> ListenerInfo:
        return cls(kind, address, kind is not ListenerKind.LOCAL and not is_loopback_address(address))


class RequestPolicy:
    """Decides which requests the gateway accepts; one for all connections.

    To add a check: write a function that returns an ErrorResponse or None, and add it to `check`. The order there is
    the order in which clients learn what is wrong; a check may rely on those before it.
    """

    def __init__(self, limits: Limits, *, hosts: AllowedHosts | None = None, keyring: Keyring | None = None) -> None:
        self.limits = limits
        self._hosts = hosts or AllowedHosts()
        self._keyring = keyring or Keyring()

    def check(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        """Return the error to refuse a request with; None to accept it."""
        return (
            _check_framing(head)
            or _check_target(head)
            or self._check_sender(head, listener)
            or self._check_key(head, listener)
            or _check_exposed(head)
            or self._check_size(head)
        )

    def _check_sender(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        """Refuse unknown hosts and foreign pages: a page in the user's browser can reach loopback, by a name that
        resolves to it or by a cross-site request.
        """
        hosts = head.gateway_headers.get(b"host", [])
        if len(hosts) > 1 or (not hosts and not head.is_http10):
            return malformed("a request must have exactly one Host header")
        if hosts and head.exposed_model is None and not self._hosts.is_host(hosts[0], listener.address):
            return _not_a_host(hosts[0], is_from_cloudflare=b"cf-ray" in head.gateway_headers)
        origins = head.gateway_headers.get(b"origin", ())
        for origin in origins:
            if not self._hosts.is_origin(origin, listener.address):
                return _not_an_origin(origin)
        if b"sec-fetch-site" in head.gateway_headers and not origins and _is_cross_site(head):
            return _forbidden("pages of other sites may not use the gateway", "open the gateway's own page")
        return None

    def _check_key(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        if not self._needs_key(head, listener):
            return None
        purpose = self._keyring.purpose_of(head)
        if purpose is None:
            return _no_valid_key(head)
        if purpose is not Purpose.MANAGEMENT and not head.path.startswith(b"/v1/"):
            return _not_for_management(head)
        return None

    def _needs_key(self, head: RequestHead, listener: ListenerInfo) -> bool:
        """True if the request needs an API key: if any key exists, if other machines can reach the listener, or if it
        came through a tunnel. The Unix socket needs none: only this user can open it.
        """
        if head.is_preflight:
            return False
        if head.exposed_model is not None:
            return True
        if listener.kind is ListenerKind.LOCAL or not (self._keyring.current() or listener.is_exposed):
            return False
        return head.path != _OPEN_PATH and not _is_page_file(head)

    def _check_size(self, head: RequestHead) -> ErrorResponse | None:
        length = head.value(b"content-length")
        # More than 18 digits exceed every limit; int() of a very long number is slow.
        if length and (len(length) > 18 or int(length) > self.limits.body_bytes):
            return body_too_large(self.limits)
        return None


def _check_framing(head: RequestHead) -> ErrorResponse | None:
    """Refuse what llhttp accepts although another parser might find a different end of the request."""
    if head.is_http10 and b"transfer-encoding" in head.gateway_headers:
        return malformed("an HTTP/1.0 request cannot have Transfer-Encoding")
    if head.version not in ("1.0", "1.1"):
        return malformed(f"HTTP/{head.version} is not supported")
    if head.method == b"CONNECT":
        hint = "mmd install   # prints the address to use"
        return ErrorResponse(405, "this is not a proxy", hint, "method_not_allowed")
    encodings = head.gateway_headers.get(b"transfer-encoding")
    if encodings is not None and (len(encodings) > 1 or encodings[0].lower() != b"chunked"):
        return malformed("Transfer-Encoding supports only chunked")
    if (expect := head.value(b"expect")) and expect.lower() != b"100-continue":
        return ErrorResponse(417, "Expect supports only 100-continue", "leave out Expect", "expectation_failed")
    return None


def _check_target(head: RequestHead) -> ErrorResponse | None:
    if not head.target.startswith(b"/"):
        return malformed("the request target must be a path")
    path = head.path
    if head.is_inference:
        if not _PLAIN_V1_PATH.fullmatch(path):
            return malformed("a path below /v1 must not contain escapes, empty segments or dot segments")
        if _CHANGES_ENGINE.fullmatch(path):
            return _forbidden(f"{_shown(path)} changes what an engine serves", "mmd list   # shows the models")
    return None


def _check_exposed(head: RequestHead) -> ErrorResponse | None:
    if head.exposed_model is None or head.path.startswith(b"/v1/"):
        return None
    return ErrorResponse(404, f"{_shown(head.path)} is not available here, only /v1 is", "GET /v1/models", "not_found")


def _is_page_file(head: RequestHead) -> bool:
    """True for the web page's files: they hold nothing about this machine, and the page asks its user for a key."""
    return head.method in (b"GET", b"HEAD") and (head.path == b"/" or head.path.startswith(b"/page/"))


def _is_cross_site(head: RequestHead) -> bool:
    """True for a cross-site request, except for a link to the gateway's page. A form is not one."""
    is_followed_link = head.method in _SAFE_METHODS and head.value(b"sec-fetch-mode") == b"navigate"
    return head.value(b"sec-fetch-site") == b"cross-site" and not is_followed_link


def _no_valid_key(head: RequestHead) -> ErrorResponse:
    # For Basic, a navigating browser asks its user for a name, which is ignored, and a password, which is the key.
    navigates = head.value(b"sec-fetch-mode") == b"navigate"
    challenge = 'Basic realm="mmd", charset="UTF-8"' if navigates else 'Bearer realm="mmd"'
    message = "the gateway needs an API key, and the request has no valid one"
    hint = "mmd key add NAME   # prints a key, for the header: Authorization: Bearer KEY"
    more = (("www-authenticate", challenge), *cors_headers(head.origin))
    return ErrorResponse(401, message, hint, "invalid_api_key", more_headers=more)


def _not_for_management(head: RequestHead) -> ErrorResponse:
    hint = "mmd key add NAME --for management   # a key for everything"
    return ErrorResponse(
        403,
        "this key is for /v1 only",
        hint,
        "insufficient_permissions",
        "permission_error",
        more_headers=cors_headers(head.origin),
    )


def _not_a_host(host: bytes, *, is_from_cloudflare: bool) -> ErrorResponse:
    shown = _shown(host)
    if is_from_cloudflare:
        # Do not suggest [gateway] hosts: a tunnel set up on Cloudflare's pages sends its public name, and allowing that
        # name would expose all models and the management API.
        hint = "set the tunnel's HTTP Host Header to ID.exposed.mmd.internal   # or use: mmd expose ID"
        return _forbidden(f"the gateway does not serve the host {shown}", hint)
    hint = f'if it is this machine, add it to mmd.toml: [gateway] hosts = ["{shown}"], then: mmd install'
    return _forbidden(f"the gateway does not serve the host {shown}", hint)


def _not_an_origin(origin: bytes) -> ErrorResponse:
    shown = _shown(origin)
    hint = f'if you trust it, add it to mmd.toml: [gateway] origins = ["{shown}"], then: mmd install'
    return _forbidden(f"pages of {shown} may not use the gateway", hint)


def _shown(value: bytes) -> str:
    return value[:100].decode("latin-1")


def _forbidden(message: str, hint: str = "mmd install   # prints the address to use") -> ErrorResponse:
    return ErrorResponse(403, message, hint, "forbidden", "permission_error")


def malformed(message: str) -> ErrorResponse:
    return ErrorResponse(400, message, "mmd list   # GET /v1/models is the simplest request", "malformed_request")


def head_too_large(limits: Limits) -> ErrorResponse:
    message = f"the request's head is larger than {limits.head_bytes} bytes"
    return ErrorResponse(431, message, "send fewer or shorter headers", "head_too_large")


def body_too_large(limits: Limits) -> ErrorResponse:
    message = f"the request's body is larger than {limits.body_bytes} bytes"
    return ErrorResponse(413, message, "send smaller or fewer attachments", "body_too_large")

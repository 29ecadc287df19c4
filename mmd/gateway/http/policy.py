"""Which requests are refused on sight: by their framing, their path, who sends them, their size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mmd.gateway.http.api_keys import Purpose
from mmd.gateway.http.cors import cors_headers
from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.http.keyring import Keyring
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import AllowedHosts, is_loopback_address
from mmd.gateway.http.request import RequestHead

# No escapes, no empty, "." or ".." segments: what an engine would make of them is not for us to guess, and behind
# its /v1 lie endpoints such as /sleep.
_PLAIN_V1_PATH = re.compile(rb"/v1(?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+,;=:@-]+)+/?")

_OPEN_PATH = b"/health"  # for those who watch over the gateway, and need not know a key for it
_READING = (b"GET", b"HEAD", b"OPTIONS")

# Of vLLM, and all that there is below /v1 of either engine that changes what it serves.
_CHANGES_THE_ENGINE = re.compile(rb"/v1/(?:un)?load_lora_adapter/?")


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """Where one client has come in: the listener's kind, and the address of this machine that it connected to."""

    kind: ListenerKind = ListenerKind.MAIN
    address: str = "127.0.0.1"  # "" for a Unix socket
    is_exposed: bool = field(init=False)  # other machines reach that address

    def __post_init__(self) -> None:
        is_exposed = self.kind is not ListenerKind.LOCAL and not is_loopback_address(self.address)
        object.__setattr__(self, "is_exposed", is_exposed)  # frozen; and read for every request


class RequestPolicy:
    def __init__(self, limits: Limits, *, names: AllowedHosts | None = None, keyring: Keyring | None = None) -> None:
        self.limits = limits
        self._names = names or AllowedHosts()
        self._keyring = keyring or Keyring()

    def check(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        """Why this request is not served, judged by its head alone."""
        return (
            _bad_framing(head)
            or _bad_target(head)
            or self._bad_sender(head, listener)
            or self._no_key(head, listener)
            or _not_exposed(head)
            or self._too_large(head)
        )

    def _bad_sender(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        """A page in the user's browser can reach loopback too: by a name that resolves to it, or across sites."""
        hosts = head.gateway_headers.get(b"host", [])
        if len(hosts) > 1 or (not hosts and not head.is_http10):
            return malformed("a request names exactly one Host")
        if hosts and head.exposed_model is None and not self._names.is_host(hosts[0], listener.address):
            return _not_a_host(hosts[0], is_from_cloudflare=b"cf-ray" in head.gateway_headers)
        origins = head.gateway_headers.get(b"origin", ())
        for origin in origins:
            if not self._names.is_origin(origin, listener.address):
                return _not_an_origin(origin)
        if b"sec-fetch-site" in head.gateway_headers and not origins and _is_across_sites(head):
            return _forbidden("a page of another site may not use the gateway", "open the gateway's own page")
        return None

    def _no_key(self, head: RequestHead, listener: ListenerInfo) -> ErrorResponse | None:
        if not self._needs_key(head, listener):
            return None
        purpose = self._keyring.purpose_of(head)
        if purpose is None:
            return _no_valid_key(head)
        if purpose is not Purpose.MANAGEMENT and not head.path.startswith(b"/v1/"):
            return _not_for_management(head)
        return None

    def _needs_key(self, head: RequestHead, listener: ListenerInfo) -> bool:
        """Keys are asked for as soon as there are any, and always where other machines can connect or a tunnel brings
        them. The Unix socket needs none: whoever it let in is the user.
        """
        if head.is_preflight:
            return False
        if head.exposed_model is not None:
            return True
        if listener.kind is ListenerKind.LOCAL or not (self._keyring.current() or listener.is_exposed):
            return False
        return head.path != _OPEN_PATH and not _is_of_the_page(head)

    def _too_large(self, head: RequestHead) -> ErrorResponse | None:
        length = head.value(b"content-length")
        # More digits than any limit has: not even read, int() of a long one is slow.
        if length and (len(length) > 18 or int(length) > self.limits.body_bytes):
            return body_too_large(self.limits)
        return None


def _bad_framing(head: RequestHead) -> ErrorResponse | None:
    """What the parser lets through although two readers could differ on where the request ends."""
    if head.is_http10 and b"transfer-encoding" in head.gateway_headers:
        return malformed("an HTTP/1.0 request has no Transfer-Encoding")
    if head.version not in ("1.0", "1.1"):
        return malformed(f"HTTP/{head.version} is not spoken here")
    if head.method == b"CONNECT":
        return ErrorResponse(
            405, "this is not a proxy", "mmd install   # prints the address to use", "method_not_allowed"
        )
    encodings = head.gateway_headers.get(b"transfer-encoding")
    if encodings is not None and (len(encodings) > 1 or encodings[0].lower() != b"chunked"):
        return malformed("no Transfer-Encoding but chunked is understood")
    if (expect := head.value(b"expect")) and expect.lower() != b"100-continue":
        return ErrorResponse(
            417, "no expectation but 100-continue is understood", "leave out Expect", "expectation_failed"
        )
    return None


def _bad_target(head: RequestHead) -> ErrorResponse | None:
    if not head.target.startswith(b"/"):
        return malformed("the request target must be a path")
    path = head.path
    if head.is_inference:
        if not _PLAIN_V1_PATH.fullmatch(path):
            return malformed("a path below /v1 must be written plainly, without escapes and dot segments")
        if _CHANGES_THE_ENGINE.fullmatch(path):
            return _forbidden(f"{_shown(path)} changes what an engine serves", "mmd list   # what can be asked")
    return None


def _not_exposed(head: RequestHead) -> ErrorResponse | None:
    if head.exposed_model is None or head.path.startswith(b"/v1/"):
        return None
    return ErrorResponse(404, f"{_shown(head.path)} is not offered here, only /v1 is", "GET /v1/models", "not_found")


def _is_of_the_page(head: RequestHead) -> bool:
    """Its files, which are the same everywhere and say nothing of this machine; it asks its user for a key itself."""
    return head.method in (b"GET", b"HEAD") and (head.path == b"/" or head.path.startswith(b"/page/"))


def _is_across_sites(head: RequestHead) -> bool:
    """A link to the gateway's page may lie on any other; a form that a page submits does more than read."""
    is_followed_link = head.method in _READING and head.value(b"sec-fetch-mode") == b"navigate"
    return head.value(b"sec-fetch-site") == b"cross-site" and not is_followed_link


def _no_valid_key(head: RequestHead) -> ErrorResponse:
    # A browser that navigates asks its user for a name, which does not matter, and a password: the key.
    navigates = head.value(b"sec-fetch-mode") == b"navigate"
    challenge = 'Basic realm="mmd", charset="UTF-8"' if navigates else 'Bearer realm="mmd"'
    message = "the gateway needs an API key, and the request has none that is valid"
    hint = "mmd key add NAME   # prints one, for the header: Authorization: Bearer KEY"
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
        # Not to be put among our hosts: a tunnel of ours that was set up on Cloudflare's pages sends its public name,
        # and by that all models would be reached, and our state.
        hint = "set the tunnel's HTTP Host Header to ID.exposed.mmd.internal   # or make it with: mmd expose ID"
        return _forbidden(f"the gateway does not answer for {shown}", hint)
    hint = f'put it into mmd.toml if it is this machine: [gateway] hosts = ["{shown}"], then: mmd install'
    return _forbidden(f"the gateway does not answer for {shown}", hint)


def _not_an_origin(origin: bytes) -> ErrorResponse:
    shown = _shown(origin)
    hint = f'put it into mmd.toml if you trust it: [gateway] origins = ["{shown}"], then: mmd install'
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

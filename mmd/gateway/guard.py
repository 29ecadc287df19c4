"""Which requests are refused on sight: by their size, their path, and where a browser says they come from."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from mmd.gateway.failure import Failure
from mmd.gateway.head import Head
from mmd.gateway.limits import Limits

# No escapes, no empty, "." or ".." segments: what an engine would make of them is not for us to guess, and behind
# its /v1 lie endpoints such as /sleep.
_PLAIN_V1_PATH = re.compile(rb"/v1(?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+,;=:@-]+)+/?")

# Of vLLM, and all that there is below /v1 of either engine that changes what it serves.
_CHANGES_THE_ENGINE = re.compile(rb"/v1/(?:un)?load_lora_adapter/?")


def objection(head: Head, limits: Limits) -> Failure | None:
    """Why this request is not served, judged by its head alone."""
    return _bad_framing(head) or _bad_target(head) or _bad_sender(head) or _too_large(head, limits)


def _bad_framing(head: Head) -> Failure | None:
    """What the parser lets through although two readers could differ on where the request ends."""
    if head.is_http10 and b"transfer-encoding" in head.here:
        return malformed("an HTTP/1.0 request has no Transfer-Encoding")
    if head.version not in ("1.0", "1.1"):
        return malformed(f"HTTP/{head.version} is not spoken here")
    if head.method == b"CONNECT":
        return Failure(405, "this is not a proxy", "mmd install   # prints the address to use", "method_not_allowed")
    if b"transfer-encoding" in head.here and head.value(b"transfer-encoding").lower() != b"chunked":
        return malformed("no Transfer-Encoding but chunked is understood")
    if (expect := head.value(b"expect")) and expect.lower() != b"100-continue":
        return Failure(417, "no expectation but 100-continue is understood", "leave out Expect", "expectation_failed")
    return None


def _bad_target(head: Head) -> Failure | None:
    if not head.target.startswith(b"/"):
        return malformed("the request target must be a path")
    path = head.path
    if head.is_for_an_engine:
        if not _PLAIN_V1_PATH.fullmatch(path):
            return malformed("a path below /v1 must be written plainly, without escapes and dot segments")
        if _CHANGES_THE_ENGINE.fullmatch(path):
            return _forbidden(f"{_shown(path)} changes what an engine serves", "mmd list   # what can be asked")
    return None


def _bad_sender(head: Head) -> Failure | None:
    """A page in the user's browser can reach loopback too: by a name that resolves to it, or across sites."""
    hosts = head.here.get(b"host", [])
    if len(hosts) > 1 or (not hosts and not head.is_http10):
        return malformed("a request names exactly one Host")
    if hosts and not is_loopback_authority(hosts[0]):
        return _forbidden(f"the gateway does not answer for {_shown(hosts[0])}")
    for origin in head.here.get(b"origin", ()):
        if not is_loopback_origin(origin):
            return _forbidden(f"pages of {_shown(origin)} may not use the gateway")
    return None


def _too_large(head: Head, limits: Limits) -> Failure | None:
    length = head.value(b"content-length")
    # More digits than any limit has: not even read, int() of a long one is slow.
    if length and (len(length) > 18 or int(length) > limits.body_bytes):
        return body_too_large(limits)
    return None


@lru_cache(maxsize=256)
def is_loopback_authority(authority: bytes) -> bool:
    """Whether `host[:port]` can only mean this machine."""
    try:
        host = urlsplit(b"//" + authority).hostname
    except ValueError:
        return False
    return host is not None and b"@" not in authority and _is_loopback(host.decode("latin-1"))


@lru_cache(maxsize=256)
def is_loopback_origin(origin: bytes) -> bool:
    scheme, separator, authority = origin.partition(b"://")
    return bool(separator) and scheme in (b"http", b"https") and is_loopback_authority(authority)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: never looked up elsewhere
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(value: bytes) -> str:
    return value[:100].decode("latin-1")


def _forbidden(message: str, hint: str = "mmd install   # prints the address to use") -> Failure:
    return Failure(403, message, hint, "forbidden", "permission_error")


def malformed(message: str) -> Failure:
    return Failure(400, message, "mmd list   # GET /v1/models is the simplest request", "malformed_request")


def head_too_large(limits: Limits) -> Failure:
    message = f"the request's head is larger than {limits.head_bytes} bytes"
    return Failure(431, message, "send fewer or shorter headers", "head_too_large")


def body_too_large(limits: Limits) -> Failure:
    message = f"the request's body is larger than {limits.body_bytes} bytes"
    return Failure(413, message, "send smaller or fewer attachments", "body_too_large")

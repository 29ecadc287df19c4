"""Check whether the Hugging Face hub answers, and explain why not. Local models run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.registry.endpoint import require_usable_endpoint

# Parts of the error messages of Python's ssl, httpx and the resolver.
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_UNRESOLVED = ("Name or service not known", "name resolution", "No address associated")
_PROXY_AUTHENTICATION = "407"


@dataclass(frozen=True, slots=True)
class HubAccess:
    """The hub that answered."""

    endpoint: str
    has_token: bool


def hub_endpoint() -> str:
    """Return the hub's address, by the rule of huggingface_hub."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def import_library() -> None:
    """Import huggingface_hub before the time limit of the request starts: 0.1 s, and much more on a busy machine.

    Raises HubUnavailable if HF_ENDPOINT is not a URL.
    """
    require_usable_endpoint()
    import huggingface_hub.errors  # noqa: F401  api.py imports it


def read_access() -> HubAccess:
    """Request one model, with the token if there is one. Raises HubUnavailable, RepositoryGated and others."""
    from huggingface_hub import constants, get_token

    from mmd.registry.hub.api import ask, hub_errors

    with hub_errors("models"):
        ask("/api/models", {"limit": "1"})
    return HubAccess(constants.ENDPOINT, has_token=get_token() is not None)


def check_hub(reading: BackgroundRead[HubAccess]) -> Iterator[Diagnosis]:
    try:
        access = reading.value()
    except ReadFailed as failure:
        yield explain_hub_error(failure.diagnosis, hub_endpoint(), getproxies())
        return
    token = "token accepted" if access.has_token else "no token (only gated models need one)"
    yield ok(f"{access.endpoint} answers; {token}")


def explain_hub_error(diagnosis: Diagnosis, endpoint: str, proxies: Mapping[str, str]) -> Diagnosis:
    """Return the diagnosis in plain words, with a command that shows or fixes the cause."""
    host, proxy = _host(endpoint), proxies.get(endpoint.partition("://")[0], "") or proxies.get("all", "")
    if _UNTRUSTED in diagnosis.message:
        return warning(
            f"{host} has an untrusted certificate: an intercepting proxy, or a wrong clock",
            f"curl -vI {endpoint}   # shows the issuer; then: export SSL_CERT_FILE=FILE with the issuer's certificate",
        )
    if any(words in diagnosis.message for words in _UNRESOLVED):
        sought = _host(proxy) if proxy else host
        return warning(f"{sought} does not resolve: no network or no DNS", f"getent hosts {sought}   # and: ip route")
    if proxy and _PROXY_AUTHENTICATION in diagnosis.message:
        return warning(f"the proxy {proxy} requires a password", "export HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
    if proxy:
        return warning(
            f"{diagnosis.message} (through the proxy {proxy})", "env | grep -i _proxy   # is this proxy intended?"
        )
    return warning(diagnosis.message, diagnosis.hint)


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or address
    except ValueError:
        return address

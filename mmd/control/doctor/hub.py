"""The Hugging Face hub: whether it answers, and in plain words why not. Models that are here run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.registry.endpoint import require_usable_endpoint

# In what Python's ssl, httpx and the resolver say.
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_UNRESOLVED = ("Name or service not known", "name resolution", "No address associated")
_PROXY_WANTS_PASSWORD = "407"


@dataclass(frozen=True, slots=True)
class HubAccess:
    endpoint: str
    has_token: bool


def hub_endpoint() -> str:
    """As the hub's library has it."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def import_library() -> None:
    """It takes a tenth of a second, and on a busy machine more than there is patience with the hub.

    Raises HubUnavailable where HF_ENDPOINT is no address.
    """
    require_usable_endpoint()
    import huggingface_hub.errors  # noqa: F401  api.py imports it


def read_access() -> HubAccess:
    """Ask it for one model, with the token where there is one. Raises HubUnavailable, RepositoryGated and others."""
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
    token = "and takes your token" if access.has_token else "without a token, which only gated models need"
    yield ok(f"{access.endpoint} answers, {token}")


def explain_hub_error(diagnosis: Diagnosis, endpoint: str, proxies: Mapping[str, str]) -> Diagnosis:
    """A failure as people say it, with what would mend it."""
    host, proxy = _host(endpoint), proxies.get(endpoint.partition("://")[0], "") or proxies.get("all", "")
    if _UNTRUSTED in diagnosis.message:
        return warning(
            f"{host} shows a certificate that is not trusted: a proxy that reads along, or a wrong clock",
            f"curl -vI {endpoint}   # whose; then: export SSL_CERT_FILE=FILE with that authority's certificate",
        )
    if any(said in diagnosis.message for said in _UNRESOLVED):
        sought = _host(proxy) if proxy else host
        return warning(f"{sought} is not found: no network, or no DNS", f"getent hosts {sought}   # and: ip route")
    if proxy and _PROXY_WANTS_PASSWORD in diagnosis.message:
        return warning(f"the proxy {proxy} wants a password", "export HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
    if proxy:
        return warning(f"{diagnosis.message}, by the proxy {proxy}", "env | grep -i _proxy   # see whether it is meant")
    return warning(diagnosis.message, diagnosis.hint)


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or address
    except ValueError:
        return address

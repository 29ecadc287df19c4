"""The host name of exposed requests: it names the one model that a tunnel may reach.

cloudflared sets it as `Host` in every request, replacing the client's. Names below .internal cannot exist in the public
DNS, so no web page can have such an origin.
"""

from __future__ import annotations

_SUFFIX = ".exposed.mmd.internal"
_SUFFIX_BYTES = _SUFFIX.encode()


def exposed_host(model_id: str) -> str:
    """Return the host name of an exposed model."""
    return model_id + _SUFFIX


def exposed_model(host: bytes) -> str | None:
    """Return the model id in such a host name; None for any other host."""
    return host[: -len(_SUFFIX_BYTES)].decode("latin-1") if host.endswith(_SUFFIX_BYTES) else None

"""The name that a tunnel calls the gateway by: it says which model is exposed, and so all that the tunnel may reach.

cloudflared writes it into every request as `Host`, over whatever the far end has sent. Below .internal nobody can have
a name in the public DNS, so no page can be served from there to use it for more.
"""

from __future__ import annotations

_SUFFIX = ".exposed.mmd.internal"
_SUFFIX_BYTES = _SUFFIX.encode()


def exposed_host(model_id: str) -> str:
    return model_id + _SUFFIX


def exposed_model(host: bytes) -> str | None:
    """The id in such a name; None in any other."""
    return host[: -len(_SUFFIX_BYTES)].decode("latin-1") if host.endswith(_SUFFIX_BYTES) else None

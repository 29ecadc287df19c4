"""Command line, environment and public address of cloudflared for one model.

Source of these facts: https://github.com/cloudflare/cloudflared, cmd/cloudflared/tunnel and ingress/origin_proxy.go.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from collections.abc import Mapping

from mmd.control.tunnel.host import exposed_host
from mmd.errors import ProgramMissing, TunnelFailed

_RELEASES = "https://github.com/cloudflare/cloudflared/releases/latest/download"
_HTTP_TIMEOUT_SECONDS = 5.0


def program() -> str:
    """Return the path of cloudflared. Raises ProgramMissing."""
    found = shutil.which("cloudflared")
    if found is None:
        package = "cloudflared-linux-$(dpkg --print-architecture).deb"
        raise ProgramMissing(
            "cloudflared, which opens the tunnel, is not on PATH",
            hint=f"(cd /tmp && curl -fLO {_RELEASES}/{package} && sudo apt install ./{package})",
        )
    return found


def command(cloudflared: str, model_id: str, gateway: str, *, is_named: bool) -> tuple[str, ...]:
    """Return the command line of a tunnel to `gateway` (HOST:PORT) that exposes one model.

    A named tunnel reads its token from the environment.
    """
    return (
        *(cloudflared, "tunnel"),
        # Ingress rules of an existing config.yml would override --url and --http-host-header.
        *("--config", "/dev/null"),
        *("--no-autoupdate", "--metrics", "127.0.0.1:0", "--grace-period", "5s"),
        *(("run",) if is_named else ()),
        *("--url", f"http://{gateway}", "--http-host-header", exposed_host(model_id)),
    )


def environment(ours: Mapping[str, str], token: str | None) -> dict[str, str]:
    """Return the environment without TUNNEL_ variables of another tunnel, which cloudflared would read."""
    kept = {name: value for name, value in ours.items() if not name.startswith("TUNNEL_")}
    return kept | ({"TUNNEL_TOKEN": token} if token is not None else {})


def is_token(text: str) -> bool:
    """True if this looks like the output of `cloudflared tunnel token NAME`."""
    try:
        record = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
    return isinstance(record, dict) and {"a", "t", "s"} <= record.keys()


def quick_url(pid: int) -> str:
    """Ask the cloudflared with this pid for the URL of its unnamed tunnel. Raises MmdError."""
    import httpx
    import psutil

    try:
        listening = [one for one in psutil.Process(pid).net_connections("tcp4") if one.status == psutil.CONN_LISTEN]
        hostname = _quick_hostname(listening[0].laddr.port)
    except (psutil.Error, IndexError, OSError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise TunnelFailed(
            f"cloudflared did not report its URL: {error!r}", hint="cloudflared --version   # is it old?"
        ) from error
    return f"https://{hostname}"


def _quick_hostname(metrics_port: int) -> str:
    import httpx

    url = f"http://127.0.0.1:{metrics_port}/quicktunnel"
    return str(httpx.get(url, timeout=_HTTP_TIMEOUT_SECONDS, trust_env=False).json()["hostname"])

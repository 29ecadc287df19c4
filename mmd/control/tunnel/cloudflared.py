"""cloudflared: how it is started for one model, and where it says it can be reached.

Written after its source, https://github.com/cloudflare/cloudflared: cmd/cloudflared/tunnel, ingress/origin_proxy.go.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from collections.abc import Mapping

from mmd.control.tunnel.host import exposed_host
from mmd.errors import MmdError, ProgramMissing

_RELEASES = "https://github.com/cloudflare/cloudflared/releases/latest/download"
_ANSWER_SECONDS = 5.0


def program() -> str:
    """Where cloudflared is. Raises ProgramMissing."""
    found = shutil.which("cloudflared")
    if found is None:
        package = "cloudflared-linux-$(dpkg --print-architecture).deb"
        raise ProgramMissing(
            "there is no cloudflared on PATH, which makes the tunnel",
            hint=f"(cd /tmp && curl -fLO {_RELEASES}/{package} && sudo apt install ./{package})",
        )
    return found


def command(cloudflared: str, model_id: str, gateway: str, *, is_named: bool) -> tuple[str, ...]:
    """The command line for a tunnel to `gateway`, HOST:PORT, that reaches one model; a named one takes its token from
    the environment.
    """
    return (
        *(cloudflared, "tunnel"),
        # Rules of a config.yml that happens to be there would go before --url, and past the Host.
        *("--config", "/dev/null"),
        *("--no-autoupdate", "--metrics", "127.0.0.1:0", "--grace-period", "5s"),
        *(("run",) if is_named else ()),
        *("--url", f"http://{gateway}", "--http-host-header", exposed_host(model_id)),
    )


def environment(ours: Mapping[str, str], token: str | None) -> dict[str, str]:
    """Without settings for another tunnel, which cloudflared would take from there."""
    kept = {name: value for name, value in ours.items() if not name.startswith("TUNNEL_")}
    return kept | ({"TUNNEL_TOKEN": token} if token is not None else {})


def is_token(text: str) -> bool:
    """Whether this is what `cloudflared tunnel token NAME` prints."""
    try:
        record = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
    return isinstance(record, dict) and {"a", "t", "s"} <= record.keys()


def quick_url(pid: int) -> str:
    """The address of a tunnel without a name, asked of the cloudflared that has it. Raises MmdError."""
    from http.client import HTTPException

    import psutil

    try:
        listening = [one for one in psutil.Process(pid).net_connections("tcp4") if one.status == psutil.CONN_LISTEN]
        hostname = _quick_hostname(listening[0].laddr.port)
    except (psutil.Error, IndexError, OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise MmdError(
            f"cloudflared does not say where it can be reached: {error!r}", hint="cloudflared --version   # is it old?"
        ) from error
    return f"https://{hostname}"


def _quick_hostname(metrics_port: int) -> str:
    from http.client import HTTPConnection

    asked = HTTPConnection("127.0.0.1", metrics_port, timeout=_ANSWER_SECONDS)
    try:
        asked.request("GET", "/quicktunnel")
        return str(json.loads(asked.getresponse().read())["hostname"])
    finally:
        asked.close()

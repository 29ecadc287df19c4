"""The verb expose, and the hidden verb tunnel, which its units run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mmd.control.tunnel.named_tunnel import NamedTunnel


@click.command()
@parameters.some_model_id
@click.option("--off", is_flag=True, help="Close the tunnel; without ID, all tunnels.")
@click.option(
    "--at", "hostname", metavar="HOST", help="Use your own hostname permanently; read the tunnel's token from stdin."
)
@parameters.as_json
def expose(model_id: str | None, off: bool, hostname: str | None, as_json: bool) -> None:
    """Make a model reachable from the internet.

    A Cloudflare tunnel gives access to this model's /v1 and nothing else, with an API key. Without ID, list the exposed
    models.

    \b
      mmd expose ID          under a random hostname of Cloudflare, until the tunnel ends
      cloudflared tunnel token NAME | mmd expose ID --at llm.example.org
                             under your own hostname, also after a reboot
    """
    if off:
        if hostname is not None:
            raise click.UsageError("--off cannot be combined with --at")
        _end(model_id)
    elif model_id is None:
        if hostname is not None:
            raise click.UsageError("--at needs an ID")
        _list(as_json)
    else:
        from mmd.control.tunnel.tunnels import expose as open_tunnel
        from mmd.gateway.http.api_keys import require_key_to_expose

        require_key_to_expose()
        done = wait_for(open_tunnel(model_id, _named(model_id, hostname)))
        if as_json:
            print_json(done)
        else:
            click.echo(done.url)
            say(f"{model_id} is reachable with any of your API keys: {done.url}/v1. Stop: mmd expose --off {model_id}")


@click.command(hidden=True)
@click.argument("model_id", metavar="ID")
@click.option("--opened", is_flag=True, help="Record the URL of the open tunnel.")
def tunnel(model_id: str, opened: bool) -> None:
    """Run cloudflared in place of this process, for mmd-tunnel@ID.service."""
    from mmd.control.tunnel import cloudflared
    from mmd.control.tunnel.named_tunnel import NamedTunnel
    from mmd.paths import tunnels_dir
    from mmd.registry.store import Registry

    Registry().get(model_id)
    named = NamedTunnel.load(model_id)
    if opened:
        url = f"https://{named.hostname}" if named else cloudflared.quick_url(int(os.environ["MAINPID"]))
        Path(tunnels_dir(), model_id, "url").write_text(url + "\n", "utf-8")
        return
    from mmd.control.tunnel.tunnels import gateway_address
    from mmd.gateway.http.sockets import local_address

    gateway = local_address(wait_for(gateway_address(model_id, is_named=named is not None)))
    words = cloudflared.command(cloudflared.program(), model_id, gateway, is_named=named is not None)
    os.execve(words[0], words, cloudflared.environment(os.environ, named.token if named else None))


def _named(model_id: str, hostname: str | None) -> NamedTunnel | None:
    from mmd.control.tunnel.named_tunnel import NamedTunnel
    from mmd.errors import WrongUsage

    if hostname is None:
        return None
    if sys.stdin.isatty():
        message = f"the token of the tunnel for {hostname} must come on standard input"
        raise WrongUsage(message, hint=f"cloudflared tunnel token NAME | mmd expose {model_id} --at {hostname}")
    return NamedTunnel.parse(hostname, sys.stdin.read().strip())


def _end(model_id: str | None) -> None:
    from mmd.control.tunnel.tunnels import unexpose

    ended = wait_for(unexpose(model_id))
    for name in ended:
        say(f"{name} is no longer exposed.")
    if not ended:
        say(f"{model_id} is not exposed." if model_id else "No model is exposed.")


def _list(as_json: bool) -> None:
    from mmd.control.tunnel.tunnels import list_tunnels

    tunnels = wait_for(list_tunnels())
    if as_json:
        print_json(tunnels)
    elif tunnels:
        rows = [(one.id, one.state, "yes" if one.lasting else "no", one.url or "") for one in tunnels]
        print_table(("MODEL", "TUNNEL", "PERMANENT", "URL"), rows)
    else:
        say("No model is exposed. Expose one: mmd expose ID")

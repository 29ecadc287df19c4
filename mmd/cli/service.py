"""Verbs about mmd and its machine: install, gateway, machine."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from mmd.cli import parameters
from mmd.cli.loop import wait_for
from mmd.cli.text import gib, say

_OWN_SHA256 = ("_sha256", "_sha2")  # until Python 3.11, and from 3.12 on; some distributions leave it out


@click.command()
@click.option("--remove", is_flag=True, help="Take the units out again; models and settings stay.")
def install(remove: bool) -> None:
    """Have the gateway listen now and at each login.

    Models are loaded then too: those of mmd default and mmd startup.
    Writes mmd's units into your user manager's folder; run it again after a change of [gateway] in mmd.toml.
    """
    from mmd.control import service
    from mmd.gateway.entrance import Entrance
    from mmd.gateway.keys import Keys
    from mmd.gateway.listen import configured, exposed, from_here, no_keys_for
    from mmd.settings import read_settings

    if remove:
        files = wait_for(service.remove())
        say("mmd's units are removed; models and settings stay." if files else "There were no units of mmd.")
        return
    addresses = configured(read_settings())
    has_keys = bool(Keys().all())
    if (address := exposed(addresses.values())) and not has_keys:
        raise no_keys_for(address)
    listen, for_embeddings = addresses[Entrance.MAIN], addresses.get(Entrance.EMBEDDING)
    done = wait_for(service.install(listen, for_embeddings))
    for file in done.files:
        click.echo(file)
    with_key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    say(f"The gateway listens: curl http://{from_here(listen)}/v1/models{with_key}")
    if for_embeddings in done.listening:
        say(f"For embeddings no model need be named: http://{from_here(for_embeddings)}/v1/embeddings")
    for socket in done.refused:
        say(f"{socket} cannot listen, and the gateway goes without: systemctl --user status {socket}")
    if not Path("/var/lib/systemd/linger", getpass.getuser()).exists():
        say("To have it, and the default model, without logging in: loginctl enable-linger")


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; else as mmd.toml says, or on systemd's socket.")
def gateway(listen: str | None) -> None:
    """Run the gateway in the foreground; mmd.service does the same."""
    _import_without_openssl()
    from mmd.gateway.run import run

    run(listen, say)


def _import_without_openssl() -> None:
    """asyncio, hashlib and hmac take OpenSSL along where they find it: a seventh of the idle gateway's memory. But it
    speaks plain HTTP, asks the hub from another process, and hashes API keys and units, for which Python's own SHA-256
    does. Who imports ssl later has it.
    """
    from importlib.util import find_spec

    has_own_sha256 = any(map(find_spec, _OWN_SHA256))
    if has_own_sha256 and sys.modules.keys().isdisjoint(("asyncio", "hashlib")):
        openssl = ("ssl", "_hashlib")
        sys.modules.update(dict.fromkeys(openssl))  # type: ignore[arg-type]  # None: not to be had, as without OpenSSL
        import asyncio  # noqa: F401
        import hashlib  # noqa: F401
        import hmac  # noqa: F401

        for name in openssl:
            del sys.modules[name]


@click.command()
@parameters.as_json
def machine(as_json: bool) -> None:
    """This machine as mmd sees it; the JSON is what --machine takes."""
    from mmd.machine import read_machine, to_json

    here = read_machine()
    if as_json:
        click.echo(to_json(here))
        return
    for gpu in here.gpus:
        click.echo(
            f"GPU {gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gib(gpu.free_bytes)} of {gib(gpu.total_bytes)} free, driver {here.driver}"
        )
    if not here.gpus:
        click.echo("GPU: none that NVIDIA's driver knows")
    click.echo(f"CPU: {here.cpu}, {here.cpu_cores} cores, {here.cpu_threads} threads")
    click.echo(f"RAM: {gib(here.ram_available_bytes)} of {gib(here.ram_total_bytes)} available")

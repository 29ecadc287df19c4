"""The verbs key add, key list and key remove."""

from __future__ import annotations

import click

from mmd.cli import parameters
from mmd.cli.output import print_json, print_table, say


@click.group()
def key() -> None:
    """Manage API keys for the gateway.

    Without keys, every user of this machine can use the gateway, and other machines cannot. With keys, each request
    over TCP needs one. Requests over the Unix socket, from mmd and your own programs, need none.
    """


@key.command("add", short_help="Make a key and print it once.")
@click.argument("name", metavar="NAME")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["inference", "management"]),
    default="inference",
    show_default=True,
    help="inference: /v1 only; management: everything, such as activating and stopping models.",
)
def add_key(name: str, purpose: str) -> None:
    """Make a key and print it once: only its hash is stored.

    A running gateway accepts it within a second.
    """
    from mmd.gateway.http.api_keys import KeyFile, Purpose

    click.echo(KeyFile().add(name, Purpose(purpose)))
    say(f"Key {name} is for {purpose}. It is shown only now; clients send: Authorization: Bearer KEY")


@key.command("list")
@parameters.as_json
def list_keys(as_json: bool) -> None:
    """List the accepted keys and their purposes."""
    from mmd.gateway.http.api_keys import KeyFile

    keys = KeyFile().all()
    if as_json:
        print_json([{"name": one.name, "for": one.purpose, "made": one.made} for one in keys])
    elif keys:
        print_table(("NAME", "FOR", "MADE (UTC)"), [(one.name, one.purpose, one.made) for one in keys])
    else:
        say("There are no keys, so none is required. Make one: mmd key add NAME")


@key.command("remove")
@click.argument("name", metavar="NAME", type=parameters.KeyName())
def remove_key(name: str) -> None:
    """Revoke a key.

    The last key cannot be removed while the gateway listens on an address that other machines can reach.
    """
    from mmd.control.install.addresses import gateway_addresses
    from mmd.gateway.http.api_keys import KeyFile
    from mmd.gateway.http.sockets import first_exposed
    from mmd.settings import read_settings

    keys = KeyFile()
    keys.remove(name, last_too=first_exposed(gateway_addresses(read_settings()).all) is None)
    say(f"Key {name} removed.")
    if not keys.all():
        say("It was the last key: every user of this machine may use the gateway now.")

"""Verbs about API keys: key add, key list, key remove."""

from __future__ import annotations

import click

from mmd.cli import parameters
from mmd.cli.output import print_json, print_table, say


@click.group()
def key() -> None:
    """API keys for the gateway.

    Without any, everybody on this machine may use it, and nobody else. As soon as there is one, every request over TCP
    needs one; mmd itself, and your own programs on the Unix socket, do not.
    """


@key.command("add", short_help="Make a key and print it, this once.")
@click.argument("name", metavar="NAME")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["inference", "management"]),
    default="inference",
    show_default=True,
    help="For /v1 alone, or for everything: activating, stopping, reading the state.",
)
def add_key(name: str, purpose: str) -> None:
    """Make a key and print it, this once: only its hash is kept.

    A running gateway knows it within a second.
    """
    from mmd.gateway.http.api_keys import KeyFile, Purpose

    click.echo(KeyFile().add(name, Purpose(purpose)))
    say(f"{name} is for {purpose}. The key is shown only now; clients send: Authorization: Bearer KEY")


@key.command("list")
@parameters.as_json
def list_keys(as_json: bool) -> None:
    """Whose keys are accepted, and for what."""
    from mmd.gateway.http.api_keys import KeyFile

    keys = KeyFile().all()
    if as_json:
        print_json([{"name": one.name, "for": one.purpose, "made": one.made} for one in keys])
    elif keys:
        print_table(("NAME", "FOR", "MADE (UTC)"), [(one.name, one.purpose, one.made) for one in keys])
    else:
        say("There are no keys, and none is needed. Make one: mmd key add NAME")


@key.command("remove")
@click.argument("name", metavar="NAME", type=parameters.KeyName())
def remove_key(name: str) -> None:
    """Have a key accepted no more.

    The last one stays while the gateway is to listen where other machines reach it.
    """
    from mmd.control.install.addresses import gateway_addresses
    from mmd.gateway.http.api_keys import KeyFile
    from mmd.gateway.http.sockets import first_exposed
    from mmd.settings import read_settings

    keys = KeyFile()
    keys.remove(name, last_too=first_exposed(gateway_addresses(read_settings()).all) is None)
    say(f"{name}'s key is not accepted any more.")
    if not keys.all():
        say("It was the last: everybody on this machine may use the gateway now.")

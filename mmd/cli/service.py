"""The verbs install, gateway and machine."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.lingering import say_how_to_linger
from mmd.cli.output import say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from mmd.control.install.addresses import Addresses
    from mmd.control.install.inspection import InstallState

_OWN_SHA256 = ("_sha256", "_sha2")  # up to Python 3.11, and from 3.12 on; some distributions leave them out


@click.command()
@click.option("--remove", is_flag=True, help="Remove the units; models and settings are kept.")
def install(remove: bool) -> None:
    """Install, enable and start the gateway's units.

    They start at each login, and load the models set with mmd default and mmd startup. If a package provides the units,
    those are enabled; otherwise copies are written into your unit folder. Run this again after changing [gateway] in
    mmd.toml.
    """
    from mmd.control.install import service
    from mmd.control.install.addresses import gateway_addresses
    from mmd.control.install.inspection import addresses_by_socket, read_install_state
    from mmd.gateway.http.api_keys import KeyFile
    from mmd.gateway.http.sockets import first_exposed, keys_required
    from mmd.settings import read_settings

    if remove:
        was_there = wait_for(service.remove())
        say("mmd's units removed; models and settings are kept." if was_there else "mmd's units are not installed.")
        return
    addresses = gateway_addresses(read_settings())
    has_keys = bool(KeyFile().all())
    if (address := first_exposed(addresses.all)) and not has_keys:
        raise keys_required(address)
    here = wait_for(read_install_state())
    if here.is_current:
        _print_up_to_date(wait_for(service.restart_gateway()))
        _print_skipped(here.masked, ())
        listening = tuple(
            address for unit, address in addresses_by_socket(addresses).items() if unit not in here.masked
        )
    else:
        done = wait_for(service.install())
        for file in done.files:
            click.echo(file)
        _print_removed(done.removed, done.set_aside)
        _print_skipped(done.masked, done.refused)
        listening = done.listening
    _print_addresses(addresses, listening, has_keys)
    _print_owner(wait_for(read_install_state()))
    say_how_to_linger()


def _print_up_to_date(ran: bool) -> None:
    say("Nothing to do: the units are up to date." + (" The gateway was restarted." if ran else ""))


def _print_removed(removed: Collection[Path], set_aside: Collection[Path]) -> None:
    for file in removed:
        say(f"{file} removed")
    for file in set_aside:
        say(f"{file} was not written by mmd; it is {file.name}.bak now. Edit units: systemctl --user edit {file.name}")


def _print_skipped(masked: Collection[str], refused: Collection[str]) -> None:
    for unit in masked:
        say(f"{unit} is masked and was skipped: systemctl --user unmask {unit} && mmd install")
    for socket in refused:
        say(f"{socket} could not bind; continuing without it: systemctl --user status {socket}")


def _print_addresses(addresses: Addresses, listening: Collection[str], has_keys: bool) -> None:
    from mmd.gateway.http.sockets import local_address

    with_key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    say(f"The gateway is listening: curl http://{local_address(addresses.main)}/v1/models{with_key}")
    if has_keys:
        say("It requires an API key. List keys: mmd key list. Make one: mmd key add NAME")
    if addresses.embedding is not None and addresses.embedding in listening:
        say(f"Embeddings endpoint (model optional): http://{local_address(addresses.embedding)}/v1/embeddings")


def _print_owner(now: InstallState) -> None:
    if not now.is_this:
        say(f"The units come from a package and start {now.program}, not this mmd in {sys.prefix}")


@click.command()
@click.option(
    "--listen", metavar="HOST:PORT", help="Listen on this address, not on that in mmd.toml or systemd's socket."
)
def gateway(listen: str | None) -> None:
    """Run the gateway in the foreground; mmd.service does the same."""
    _import_without_openssl()
    from mmd.gateway.run import run

    run(listen, say)


def _import_without_openssl() -> None:
    """Import asyncio, hashlib and hmac as on a Python without OpenSSL, which is optional for them.

    OpenSSL takes 4.7 of the idle gateway's 32 MB. The gateway speaks plain HTTP, talks to the hub from another process,
    and Python's own SHA-256 is enough for API keys and units. A later `import ssl` works.
    """
    from importlib.util import find_spec

    has_own_sha256 = any(map(find_spec, _OWN_SHA256))
    if has_own_sha256 and sys.modules.keys().isdisjoint(("asyncio", "hashlib")):
        openssl = ("ssl", "_hashlib")
        sys.modules.update(dict.fromkeys(openssl))  # type: ignore[arg-type]  # None: the import raises ImportError
        import asyncio  # noqa: F401
        import hashlib  # noqa: F401
        import hmac  # noqa: F401

        for name in openssl:
            del sys.modules[name]


@click.command()
@parameters.as_json
def machine(as_json: bool) -> None:
    """Show the memory, GPUs and CPU of this machine.

    The option --machine of other commands accepts a file with the output of --json.
    """
    from mmd.machine import read_machine, to_json

    here = read_machine()
    if as_json:
        click.echo(to_json(here))
        return
    for gpu in here.gpus:
        click.echo(
            f"GPU {gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, "
            f"{size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free, driver {here.driver}"
        )
    if not here.gpus:
        click.echo("GPU: none found")
    click.echo(f"CPU: {here.cpu}, {here.cpu_cores} cores, {here.cpu_threads} threads")
    click.echo(f"RAM: {size_text(here.ram_available_bytes)} of {size_text(here.ram_total_bytes)} available")

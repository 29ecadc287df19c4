"""Verbs about mmd and its machine: install, gateway, machine."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.lingering import say_how_it_lingers
from mmd.cli.output import say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from mmd.control.install.addresses import Addresses
    from mmd.control.install.inspection import InstallState

_OWN_SHA256 = ("_sha256", "_sha2")  # until Python 3.11, and from 3.12 on; some distributions leave it out


@click.command()
@click.option("--remove", is_flag=True, help="Take the units out again; models and settings stay.")
def install(remove: bool) -> None:
    """Have the gateway listen now and at each login.

    Models are loaded then too: those of mmd default and mmd startup.
    Puts mmd's units into your user manager: those of a package, else copies in your own unit folder. Run it again after
    a change of [gateway] in mmd.toml.
    """
    from mmd.control.install import service
    from mmd.control.install.addresses import gateway_addresses
    from mmd.control.install.inspection import addresses_by_socket, read_install_state
    from mmd.gateway.http.api_keys import KeyFile
    from mmd.gateway.http.sockets import first_exposed, keys_required
    from mmd.settings import read_settings

    if remove:
        was_there = wait_for(service.remove())
        say("mmd's units are removed; models and settings stay." if was_there else "There were no units of mmd.")
        return
    addresses = gateway_addresses(read_settings())
    has_keys = bool(KeyFile().all())
    if (address := first_exposed(addresses.all)) and not has_keys:
        raise keys_required(address)
    here = wait_for(read_install_state())
    if here.is_current:
        _say_nothing_is_to_do(wait_for(service.restart_gateway()))
        _say_what_is_left_out(here.masked, ())
        listening = tuple(
            address for unit, address in addresses_by_socket(addresses).items() if unit not in here.masked
        )
    else:
        done = wait_for(service.install())
        for file in done.files:
            click.echo(file)
        _say_what_went(done.removed, done.set_aside)
        _say_what_is_left_out(done.masked, done.refused)
        listening = done.listening
    _say_where(addresses, listening, has_keys)
    _say_whose(wait_for(read_install_state()))
    say_how_it_lingers()


def _say_nothing_is_to_do(ran: bool) -> None:
    say("Nothing to do: the units are as they should be." + (" The gateway has read mmd.toml anew." if ran else ""))


def _say_what_went(removed: Collection[Path], set_aside: Collection[Path]) -> None:
    for file in removed:
        say(f"{file} is removed")
    for file in set_aside:
        say(f"{file} was not mmd's, and is {file.name}.bak now; to change a unit: systemctl --user edit {file.name}")


def _say_what_is_left_out(masked: Collection[str], refused: Collection[str]) -> None:
    for unit in masked:
        say(f"{unit} is masked, and left out: systemctl --user unmask {unit} && mmd install")
    for socket in refused:
        say(f"{socket} cannot listen, and the gateway goes without: systemctl --user status {socket}")


def _say_where(addresses: Addresses, listening: Collection[str], has_keys: bool) -> None:
    from mmd.gateway.http.sockets import local_address

    with_key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    say(f"The gateway listens: curl http://{local_address(addresses.main)}/v1/models{with_key}")
    if has_keys:
        say("It needs a key there: mmd key list says whose there are, mmd key add NAME makes one")
    if addresses.embedding is not None and addresses.embedding in listening:
        say(f"For embeddings no model need be named: http://{local_address(addresses.embedding)}/v1/embeddings")


def _say_whose(now: InstallState) -> None:
    if not now.is_this:
        say(f"The units are a package's, and start {now.program}: another mmd than this one, which is of {sys.prefix}")


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
            f"{size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free, driver {here.driver}"
        )
    if not here.gpus:
        click.echo("GPU: none that NVIDIA's driver knows")
    click.echo(f"CPU: {here.cpu}, {here.cpu_cores} cores, {here.cpu_threads} threads")
    click.echo(f"RAM: {size_text(here.ram_available_bytes)} of {size_text(here.ram_total_bytes)} available")

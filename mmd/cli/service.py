"""Verbs about mmd itself: install, gateway."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from mmd.cli.loop import wait_for
from mmd.cli.text import say


@click.command()
@click.option("--remove", is_flag=True, help="Take the units out again; models and settings stay.")
def install(remove: bool) -> None:
    """Put mmd's units into your user manager: the gateway listens now, and after each login."""
    from mmd.settings import read_settings
    from mmd.units import static
    from mmd.units.bus import Manager

    async def work() -> tuple[Path, ...]:
        async with await Manager.connect() as manager:
            return await (static.remove(manager) if remove else static.install(manager, listen=listen))

    listen = read_settings()["gateway.listen"]
    files = wait_for(work())
    for file in files:
        click.echo(file)
    if remove:
        say("The gateway's units are removed." if files else "There were no units of mmd.")
        return
    say(f"The gateway listens: curl http://{listen}/v1/models")
    if not Path("/var/lib/systemd/linger", getpass.getuser()).exists():
        say("To have it without logging in: loginctl enable-linger")


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; else as mmd.toml says, or on systemd's socket.")
def gateway(listen: str | None) -> None:
    """Run the gateway in the foreground; mmd.service does the same."""
    from mmd.gateway.run import run

    run(listen)

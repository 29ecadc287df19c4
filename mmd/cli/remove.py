"""The verb remove: unregister a model, and optionally delete its files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from mmd.registry.disposal import Disposal
    from mmd.registry.record import Model


@click.command()
@parameters.model_id
@click.option("--files", is_flag=True, help="Also delete its files, except those that other models use.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def remove(model_id: str, files: bool, yes: bool) -> None:
    """Unregister a model and stop its engine.

    Its files are kept unless --files is given.
    """
    if not files:
        model = wait_for(_removed(model_id))
        say(f"{model.id} unregistered; its files are kept: {model.path}")
        return
    from mmd.registry.disposal import disposal_of
    from mmd.registry.store import Registry

    registry = Registry()
    model = registry.get(model_id)
    disposal = disposal_of(model, [other for other in registry.all() if other.id != model_id])
    print_disposal(disposal)
    if not yes:
        _ask(model_id, disposal)
    delete_files(model, disposal)


def delete_files(model: Model, shown: Disposal) -> None:
    """Stop the engine, unregister the model, then delete its files, so that neither refers to missing files.

    Raises StorageFailed, also if more would be deleted than `shown` says.
    """
    from mmd.registry.disposal import disposal_of
    from mmd.registry.store import Registry

    wait_for(_removed(model.id))
    # The question may have been open for hours: another model may use the files by now.
    disposal = disposal_of(model, Registry().all())
    disposal.require_within(shown)
    disposal.carry_out()
    say(f"{model.id} unregistered; {size_text(disposal.frees_bytes)} freed")


async def _removed(model_id: str) -> Model:
    from mmd.control.lifecycle.controller import Controller

    async with Controller() as controller:
        return await controller.remove(model_id)


def print_disposal(disposal: Disposal) -> None:
    for deleted in disposal.deleted:
        click.echo(f"delete {deleted.path}  {deleted.note or size_text(deleted.frees_bytes)}")
    for retained in disposal.retained:
        click.echo(f"keep   {retained.path}  {retained.reason}")


def _ask(model_id: str, disposal: Disposal) -> None:
    from mmd.errors import WrongUsage

    if not sys.stdin.isatty():
        raise WrongUsage(
            "deleting files must be confirmed, and there is no terminal to ask on",
            hint=f"mmd remove {model_id} --files --yes",
        )
    count = len(disposal.deleted)
    click.confirm(
        f"Unregister {model_id} and delete {count} file{'s' if count != 1 else ''}, {size_text(disposal.frees_bytes)}?",
        abort=True,
        err=True,
    )

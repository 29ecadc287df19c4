"""The verb that forgets a model, and deletes its files where asked to: remove."""

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
@click.option("--files", is_flag=True, help="Delete its files, too, except those that others share.")
@click.option("--yes", is_flag=True, help="Delete them without asking.")
def remove(model_id: str, files: bool, yes: bool) -> None:
    """Forget a model; its engine is stopped.

    Its files stay, without --files.
    """
    if not files:
        model = wait_for(_removed(model_id))
        say(f"{model.id} is forgotten; its files stay: {model.path}")
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


def delete_files(model: Model, told: Disposal) -> None:
    """End its engine, forget it, and then delete: an engine does not lose its files, nor the registry.

    Raises StorageFailed, also where more would go than `told` has.
    """
    from mmd.registry.disposal import disposal_of
    from mmd.registry.store import Registry

    wait_for(_removed(model.id))
    # A question may stand for hours: by now another model may share them.
    disposal = disposal_of(model, Registry().all())
    disposal.require_within(told)
    disposal.carry_out()
    say(f"{model.id} is forgotten; {size_text(disposal.frees_bytes)} are free again")


async def _removed(model_id: str) -> Model:
    from mmd.control.lifecycle.controller import Controller

    async with Controller() as controller:
        return await controller.remove(model_id)


def print_disposal(disposal: Disposal) -> None:
    for going in disposal.going:
        click.echo(f"goes   {going.path}  {going.note or size_text(going.frees_bytes)}")
    for staying in disposal.staying:
        click.echo(f"stays  {staying.path}  {staying.reason}")


def _ask(model_id: str, disposal: Disposal) -> None:
    from mmd.errors import WrongUsage

    if not sys.stdin.isatty():
        raise WrongUsage(
            "deleting files takes a yes, and there is no terminal to ask on",
            hint=f"mmd remove {model_id} --files --yes",
        )
    count = len(disposal.going)
    click.confirm(
        f"Forget {model_id} and delete {count} file{'s' if count != 1 else ''}, {size_text(disposal.frees_bytes)}?",
        abort=True,
        err=True,
    )

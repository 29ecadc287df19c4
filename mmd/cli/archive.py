"""Verbs that put a model away on another disk and bring it back: archive, restore."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import say, summary
from mmd.cli.remove import delete_files, print_disposal
from mmd.quantities import size_text

if TYPE_CHECKING:
    from mmd.registry.archive import Archiving, Restoring


@click.command()
@parameters.model_id
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--move", is_flag=True, help="Then forget the model here and delete its files, as mmd remove --files.")
def archive(model_id: str, destination: Path, move: bool) -> None:
    """Copy a model into a folder below DEST.

    The folder gets the model's name, once the copy has been read back and compared; an interrupted one is taken up by
    the same command. It holds plain files, which other tools can use, too. Bring it back with: mmd restore DEST/ID
    """
    from mmd.registry.archive import Archiving
    from mmd.registry.disposal import disposal_of
    from mmd.registry.store import Registry

    registry = Registry()
    model = registry.get(model_id)
    archiving = Archiving(model, destination.absolute())
    _carry_out(archiving)
    folder = archiving.finish()
    say(f"{model_id} is archived: {size_text(archiving.total_bytes)}")
    click.echo(folder)
    if move:
        disposal = disposal_of(model, [other for other in registry.all() if other.id != model_id])
        print_disposal(disposal)
        delete_files(model, disposal)
    else:
        say(f"It is still here as well. To free its space: mmd remove {model_id} --files")


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
def restore(source: Path) -> None:
    """Bring a model back from an archive, under its old name."""
    from mmd.registry.archive import Restoring
    from mmd.registry.store import Registry

    restoring = Restoring(source.absolute(), Registry())
    _carry_out(restoring)
    model = restoring.finish()
    click.echo(model.id)
    say(f"{summary(model)}; start it with: mmd activate {model.id}")


def _carry_out(work: Archiving | Restoring) -> None:
    from mmd.cli.transfer import Transfer

    try:
        with Transfer("copied", work.total_bytes) as transfer:
            work.copy(transfer)
        with Transfer("read back", work.total_bytes) as transfer:
            work.verify(transfer)
    except KeyboardInterrupt:
        say(f"\nThe same command goes on from here. To give it up: rm -r {quote(str(work.partial))}")
        raise

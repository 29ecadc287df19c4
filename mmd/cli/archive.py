"""The verbs archive and restore: move models to another disk and back."""

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
@click.option("--move", is_flag=True, help="Then unregister the model and delete its files, like `mmd remove --files`.")
def archive(model_id: str, destination: Path, move: bool) -> None:
    """Copy a model into a folder below DEST.

    The copy is read back and compared before the folder gets its final name, DEST/ID. If this is interrupted, run the
    same command again to continue. The folder contains plain files that other tools can use.

    Restore it with: mmd restore DEST/ID
    """
    from mmd.registry.archive import Archiving
    from mmd.registry.disposal import disposal_of
    from mmd.registry.store import Registry

    registry = Registry()
    model = registry.get(model_id)
    archiving = Archiving(model, destination.absolute())
    _carry_out(archiving)
    folder = archiving.finish()
    say(f"{model_id} archived: {size_text(archiving.total_bytes)}")
    click.echo(folder)
    if move:
        disposal = disposal_of(model, [other for other in registry.all() if other.id != model_id])
        print_disposal(disposal)
        delete_files(model, disposal)
    else:
        say(f"The original is kept. Free its space: mmd remove {model_id} --files")


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
def restore(source: Path) -> None:
    """Restore a model from an archive, under its original id."""
    from mmd.registry.archive import Restoring
    from mmd.registry.store import Registry

    restoring = Restoring(source.absolute(), Registry())
    _carry_out(restoring)
    model = restoring.finish()
    click.echo(model.id)
    say(f"{summary(model)}; start it: mmd activate {model.id}")


def _carry_out(work: Archiving | Restoring) -> None:
    from mmd.cli.transfer import Transfer

    try:
        with Transfer("copied", work.total_bytes) as transfer:
            work.copy(transfer)
        with Transfer("read back", work.total_bytes) as transfer:
            work.verify(transfer)
    except KeyboardInterrupt:
        say(f"\nRun the same command again to continue. Discard the copy: rm -r {quote(str(work.partial))}")
        raise

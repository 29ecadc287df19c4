"""The verb disk: what uses the space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import print_json, print_named_table, say
from mmd.quantities import MIB, size_text

if TYPE_CHECKING:
    from mmd.control.storage.disk import DiskUse, ModelUse


_MIN_SHOWN_BYTES = MIB


@click.command()
@parameters.as_json
def disk(as_json: bool) -> None:
    """Show what uses disk space, and how to free it."""
    from mmd.control.storage.disk import disk_use
    from mmd.registry.store import Registry

    use = disk_use(Registry().all())
    if as_json:
        print_json(use)
    else:
        _print(use)


def _print(use: DiskUse) -> None:
    others = [one for one in use.others if one.size_bytes >= _MIN_SHOWN_BYTES]
    if use.models:
        print_named_table(("ID", "OWN", "SHARED", "LAST USED", "WHERE"), [_cells(model) for model in use.models])
        click.echo()
    if others:
        print_named_table(
            ("ALSO", "SIZE", "WHERE"), [(one.what, size_text(one.size_bytes), one.path) for one in others]
        )
        click.echo()
    click.echo(f"{size_text(use.total_bytes)} in total")
    for one in use.file_systems:
        click.echo(f"{one.path}: {size_text(one.free_bytes)} of {size_text(one.total_bytes)} free")
    if use.models:
        say(f"\nFree the space of a model: mmd remove {use.models[0].id} --files")
        say(f"Move it to another disk: mmd archive {use.models[0].id} DEST --move")
    for other in others:
        say(f"{other.what}: {other.free_with}")


def _cells(model: ModelUse) -> tuple[str, ...]:
    where = model.path if model.where == "folder" else model.where
    gone = f" ({model.missing_files} missing: mmd verify {model.id})" if model.missing_files else ""
    return (
        model.id,
        size_text(model.own_bytes),
        size_text(model.shared_bytes) if model.shared_bytes else "-",
        model.last_used[:10] if model.last_used else "-",
        where + gone,
    )

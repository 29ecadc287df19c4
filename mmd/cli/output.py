"""Output: tables, records and messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mmd.quantities import count_text, size_text

if TYPE_CHECKING:
    from mmd.registry.record import Model

_GAP = "  "

NO_MODEL = """\
No model is registered yet. Register local files: mmd add PATH
Or find a model on the hub: mmd search WORDS"""


def summary(model: Model) -> str:
    """Describe a model in one line."""
    facts = model.facts
    size = f"{count_text(facts.parameters)} · {size_text(facts.weights_bytes)}"
    return f"{facts.type} · {facts.format} {facts.quant} · {size}"


def licence_text(licence: str) -> str:
    """Return the name of a licence, and what it restricts."""
    from mmd.registry.licence import Terms, terms

    match terms(licence):
        case Terms.OPEN:
            return licence
        case Terms.CONDITIONS:
            return f"{licence}: commercial use under conditions"
        case Terms.NON_COMMERCIAL:
            return f"{licence}: not for commercial use"
        case Terms.UNKNOWN:
            return f"{licence}: its terms are unknown to mmd" if licence else "unknown"


def print_json(record: object) -> None:
    from mmd.codec import encode

    click.echo(encode(record, indent=2), nl=False)


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their widest cell; the last one is not padded."""
    widths = _widths(heading, rows)
    click.secho(_row(heading, widths), dim=True)
    if rows:
        click.echo("\n".join(_row(row, widths) for row in rows))  # each echo flushes


def print_named_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. On a terminal that is too narrow, the first cell of each row gets its own line."""
    if not sys.stdout.isatty() or _width(_widths(heading, rows)) <= _terminal_columns():
        print_table(heading, rows)
        return
    widths = _widths(heading[1:], [row[1:] for row in rows])
    click.secho(f"{heading[0]}\n  {_row(heading[1:], widths)}", dim=True)
    for name, *cells in rows:
        if name:
            click.secho(name, bold=True)
        click.echo(f"  {_row(cells, widths)}")


def _widths(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _terminal_columns() -> int:
    import shutil  # 3 ms: it imports all compression modules

    return shutil.get_terminal_size().columns


def say(text: str) -> None:
    """Print a message to stderr."""
    click.echo(text, err=True)

"""How values read on a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmd.registry.record import Model

_GIB = 1024**3
_MIB = 1024**2


def gib(size_bytes: int) -> str:
    """Bytes as people compare them: GiB, or MiB below a tenth of one."""
    if size_bytes < _GIB // 10:
        return f"{size_bytes / _MIB:.1f} MiB"
    return f"{size_bytes / _GIB:.1f} GiB"


def count(number: int) -> str:
    """A number of parameters: 8.2 B, 135 M."""
    for unit, size in (("B", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def summary(model: Model) -> str:
    """What a model is, in a line."""
    facts = model.facts
    return f"{facts.type} · {facts.format} {facts.quant} · {count(facts.parameters)} · {gib(facts.weights_bytes)}"


def licence_text(licence: str) -> str:
    """Its name, and what it allows where that is not everything."""
    from mmd.registry.licence import Terms, terms

    match terms(licence):
        case Terms.OPEN:
            return licence
        case Terms.CONDITIONS:
            return f"{licence}: commercial use under conditions"
        case Terms.NON_COMMERCIAL:
            return f"{licence}: not for commercial use"
        case Terms.UNKNOWN:
            return f"{licence}: mmd does not know what it allows" if licence else "unknown"


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last is not padded."""
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    click.secho(_row(heading, widths), dim=True)
    for row in rows:
        click.echo(_row(row, widths))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def say(text: str) -> None:
    """Talk: to stderr."""
    click.echo(text, err=True)

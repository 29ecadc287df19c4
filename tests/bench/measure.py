"""A measured quantity, and the table of a list of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    what: str
    unit: str
    values: Sequence[float]
    goal: str = ""

    def cells(self) -> tuple[str, ...]:
        digits = 1 if self.unit else 0  # a quantity without a unit is a count
        low, middle, high = (
            f"{value:,.{digits}f}" for value in (min(self.values), statistics.median(self.values), max(self.values))
        )
        return (self.what, f"{middle} {self.unit}".rstrip(), f"{low} – {high}", str(len(self.values)), self.goal)


def print_rows(rows: Sequence[Row]) -> None:
    table = [("measure", "median", "range", "n", "goal"), *(row.cells() for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for index, row in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
